import numpy as np
import pandas as pd

from captum_alignment.study.page import gallery_figure

ROW = {"label": 0, "prediction": 0, "rival": 1, "alignment": 1.0, "linearized_robustness": 0.5, "distance": 0.25}


def captions(*rows, classes=None):
    rng = np.random.default_rng(0)
    names = ("image", "gradient", "binarized_gradient", "adversarial")
    maps = {name: rng.uniform(0, 1, (len(rows), 1, 8, 8)) for name in names}
    return [axes.get_xlabel() for axes in gallery_figure(maps, list(rows), classes).axes]


def test_classes_without_names_or_labels_are_numbers():
    assert captions(ROW)[0] == "0"
    assert captions({**ROW, "label": pd.NA})[0] == "0"
    assert captions({**ROW, "label": 3}, classes=["cat"])[0] == "cat (is 3)"


def test_small_numbers_keep_two_digits():
    row = {**ROW, "alignment": 0.0, "linearized_robustness": 0.00123, "distance": 0.0456}
    assert captions(row)[1:] == ["α = 0.00", "vs 1, ρ̃ = 0.0012", "ρ = 0.046"]


def test_long_captions_take_two_lines():
    first, _, third, _ = captions({**ROW, "label": 1}, classes=["a long name of a class", "$automobile"])
    assert first == "a long… class\n(is \\$automobile)"
    assert third == "vs \\$automobile,\nρ̃ = 0.50"


def test_an_image_without_adversarial_has_no_perturbation(tmp_path):
    maps = {name: np.ones((1, 3, 8, 8)) for name in ("image", "gradient", "binarized_gradient", "adversarial")}
    maps["adversarial"][:] = np.nan
    figure = gallery_figure(maps, [{**ROW, "distance": np.inf}], None)
    figure.savefig(tmp_path / "figure.png")
    assert not np.asarray(figure.axes[3].images[0].get_array()).any()


def test_rows_of_tables_and_sequences_are_bars():
    values = np.array([[[1.0, 2.0], [-3.0, 1.0], [0.0, 0.5]]])
    names = ("image", "gradient", "binarized_gradient", "adversarial")
    for maps in (values, values.sum(-1)):
        panels = gallery_figure({name: maps * (1 + (name == "adversarial")) for name in names}, [ROW], None).axes
        for axes in panels:
            np.testing.assert_allclose([bar.properties()["height"] for bar in axes.patches], [3, -2, 0.5])
        assert [axes.get_title() for axes in panels] == ["input", "saliency", "binarized", "perturbation"]


def test_attributions_stand_beside_with_their_names():
    maps = {name: np.ones((1, 3, 8, 8)) for name in ("image", "gradient", "binarized_gradient", "adversarial")}
    panels = gallery_figure(maps, [ROW], None, {"gradcam": 2 * maps["image"], "a_$name": maps["image"]}).axes
    assert [axes.get_title() for axes in panels[4:]] == ["gradcam", "a_\\$name"]
    np.testing.assert_array_equal(panels[4].images[0].get_array(), 6)  # channels summed
