import warnings

import pytest
from matplotlib.figure import Figure

from captum_alignment.study.page import labels, plain, run_style

TEXTS = ["a $x^2$ b", r"$\frac{", "_hidden", "漢字 🎲", "line\nbreak\t\x00", r"back\slash\$", "", "%s {0}"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_can_be_drawn(text, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = Figure()
        axes = figure.subplots()
        lines = axes.plot([0, 1])
        axes.set_title(plain(text))
        shown = figure.legend(lines, [plain(text)])
        figure.savefig(tmp_path / "figure.png")
    assert len(shown.get_texts()) == 1


def test_long_texts_keep_their_ends():
    assert plain("abcdefghijklmnopqrstuvwxyz", 10) == "abcde…wxyz"
    assert plain("abcdefghij", 10) == "abcdefghij"


@pytest.mark.parametrize("limit", [12, 24])
def test_labels_of_different_names_differ(limit):
    middle = [f"an imagenet run number {i} with a long name" for i in range(12)]
    assert [str(i) in label for i, label in enumerate(labels(middle, limit))] == [True] * 12
    apart = [f"{i}{'-' * 40}x{'-' * 40}{i}" for i in range(3)] + ["a", "b" * 30]
    same = ["a" * 20 + c + "b" * 20 for c in "漢字"] + ["c" * 40]
    for names in (middle, apart, same):
        found = labels(names, limit)
        assert len(set(found)) == len(names)
        assert all(len(label) <= limit for label in found)


def test_short_names_stay():
    assert labels(["mlp", "mlp-2"]) == ["mlp", "mlp-2"]
    assert labels(["a_mlp", "a_" + "b" * 40], 12) == ["a_mlp", "a_bbbb…bbbbb"]
    assert labels(["a" * 40], 12) == ["aaaaaa…aaaaa"]


def test_eighteen_runs_look_different():
    styles = [run_style(number) for number in range(18)]
    assert len({(style["color"], str(style["ls"])) for style in styles}) == 18
    assert len({(style["color"], style["marker"]) for style in styles}) == 18
