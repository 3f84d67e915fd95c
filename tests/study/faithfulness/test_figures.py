import numpy as np
import pandas as pd
import torch

from captum_alignment.study.faithfulness._figures import alignment_figure, faithfulness_figure, saliency_figure
from tests.study.figures import faults

N = 4
TABLE = pd.DataFrame(
    {
        "training": ["standard", "pgd-l2", "pgd-l2", "distillation"],
        "strength": [0.0, 0.1, 0.4, 5.0],
        "usable": [True, True, False, True],
        **{f"{name}{end}": np.linspace(0.3, 0.9, N) for name in ("distance", "area") for end in ("", "_low", "_high")},
        "beyond_random": 0.9 - np.linspace(0.3, 0.9, N),
        **{f"{kind}_{name}": np.arange(N) + 1.0 for kind in ("signed", "absolute") for name in ("alignment", "null")},
    }
)


def test_networks_that_are_left_out_are_crosses():
    figure = faithfulness_figure(TABLE)
    assert faults(figure) == []
    (axes,) = figure.axes
    crosses = [np.asarray(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "x"]
    np.testing.assert_allclose(np.concatenate(crosses), TABLE.loc[~TABLE["usable"], "distance"])


def test_every_training_begins_with_the_plain_network():
    figure = alignment_figure(TABLE)
    assert faults(figure) == []
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["pgd-l2", "distillation"]
    np.testing.assert_allclose(np.asarray(panels[0].get_lines()[0].get_ydata()), [1, 2, 3])
    np.testing.assert_allclose(np.asarray(panels[1].get_lines()[0].get_ydata()), [1, 4])


def test_maps_stand_below_their_images():
    images = torch.rand(2, 3, 8, 8)
    figure = saliency_figure(images, {"a": torch.randn(2, 3, 8, 8), "b": torch.zeros(2, 3, 8, 8)})
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["image", "a", "b"]
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), images[0].permute(1, 2, 0), rtol=1e-6)
