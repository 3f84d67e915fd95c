import numpy as np
import pandas as pd
import torch

from captum_alignment.study.roar._figures import accuracy_figure, examples_figure
from captum_alignment.study.roar._grid import UNMODIFIED, Cell
from tests.study.figures import faults

ROWS = [(UNMODIFIED, UNMODIFIED, 0.0, 0.9)]
ROWS += [("roar", method, fraction, 0.9 - fraction) for method in ("saliency", "random") for fraction in (0.2, 0.6)]
CURVES = pd.DataFrame(ROWS, columns=["mode", "method", "fraction", "accuracy"])
CURVES = CURVES.assign(accuracy_low=CURVES["accuracy"] - 0.1, accuracy_high=CURVES["accuracy"] + 0.1)


def test_curves_begin_with_the_unmodified_images():
    figure = accuracy_figure(CURVES)
    assert faults(figure) == []
    (axes,) = figure.axes
    curves = [np.asarray(line.get_ydata()) for line in axes.get_lines() if len(np.asarray(line.get_ydata())) == 3]
    np.testing.assert_allclose(curves, [[0.9, 0.7, 0.3]] * 2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["saliency", "random"]


def test_ticks_of_close_accuracies_are_told_apart():
    figure = accuracy_figure(CURVES.assign(**dict.fromkeys(CURVES.filter(like="accuracy"), 0.1)))
    assert faults(figure) == []
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(ticks)) == len(ticks) > 2


def test_an_example_stands_at_its_method_and_fraction():
    shown = {Cell("roar", "saliency", fraction, 0): torch.full((1, 8, 8), fraction) for fraction in (0.6, 0.2)}
    figure = examples_figure(torch.zeros(1, 8, 8), {**shown, Cell("kar", "sobel", 0.2, 0): torch.ones(1, 8, 8)}, "roar")
    assert [axes.get_title() for axes in figure.axes] == ["image", "20 %", "60 %"]
    means = [float(np.asarray(axes.images[0].get_array()).mean()) for axes in figure.axes]
    np.testing.assert_allclose(means, [0, 0.2, 0.6], rtol=1e-6)
