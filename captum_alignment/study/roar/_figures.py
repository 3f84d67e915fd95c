"""The figures of a ROAR study."""

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from captum_alignment.study.load import RANDOM
from captum_alignment.study.page import (
    INK,
    MUTED,
    STYLE,
    WIDTH,
    labels,
    percent_axis,
    plain,
    run_style,
    short_percent,
    show_image,
)
from captum_alignment.study.roar._grid import UNMODIFIED, Cell
from captum_alignment.study.roar._summary import groups

TITLES = {
    "roar": ("ROAR: replaced by the mean", "top features replaced"),
    "kar": ("KAR: kept, the rest replaced", "top features kept"),
}
#: Rows of the figure of examples.
_METHODS = 8


def accuracy_figure(curves: pd.DataFrame) -> Figure:
    """Accuracy against the fraction of features, a panel for each mode and a curve for each method."""
    modes = [mode for mode in curves["mode"].unique() if mode != UNMODIFIED]
    methods = list(curves.loc[curves["mode"] != UNMODIFIED, "method"].unique())
    styles = {method: run_style(number + 1) for number, method in enumerate(m for m in methods if m != RANDOM)}
    styles[RANDOM] = {"color": MUTED, "ls": (0, (4, 3)), "marker": "x", "ms": 4}
    whole = float(curves.loc[curves["mode"] == UNMODIFIED, "accuracy"].iloc[0])
    by_name = dict(groups(curves, "mode", "method"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH if len(modes) > 1 else 0.75 * WIDTH, 3.3), layout="constrained")
        panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        lines = []
        for axes, mode in zip(panels, modes, strict=True):
            end = 0.0 if mode == "roar" else 1.0
            axes.axhline(whole, color=MUTED, lw=0.8, ls=(0, (1, 2)))
            for number, method in enumerate(methods):
                own = by_name[mode, method].sort_values("fraction")
                # Side by side, so that the bars of methods that agree stay apart.
                aside = 0.006 * (number - (len(methods) - 1) / 2)
                x, y = own["fraction"].to_numpy() + aside, own["accuracy"].to_numpy()
                errors = [y - own["accuracy_low"].to_numpy(), own["accuracy_high"].to_numpy() - y]
                style = {**styles[method], "markevery": None}
                axes.errorbar(x, y, errors, fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=2)
                x, y = ([end, *x], [whole, *y]) if mode == "roar" else ([*x, end], [*y, whole])
                (line,) = axes.plot(x, y, **style)
                lines.append(line)
            axes.plot([end], [whole], "o", color=INK, ms=5, zorder=4)
            title, what = TITLES[mode]
            axes.set_title(title)
            axes.set_xlabel(what)
            for axis in (axes.xaxis, axes.yaxis):
                percent_axis(axis)
        panels[0].set_ylabel("accuracy after retraining")
        figure.legend(lines[: len(methods)], labels(methods), loc="outside lower center", ncols=4, handlelength=2.6)
    return figure


def examples_figure(image: Tensor, examples: Mapping[Cell, Tensor], mode: str) -> Figure:
    """One image as the networks of ``mode`` see it: a row for each method, a column for each fraction."""
    own = {(cell.method, cell.fraction): shown for cell, shown in examples.items() if cell.mode == mode}
    methods = list(dict.fromkeys(method for method, _ in own))[:_METHODS]
    fractions = sorted({fraction for _, fraction in own})
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        size = (0.85 * (len(fractions) + 1) + 1.3, 0.85 * len(methods) + 0.35)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(methods), len(fractions) + 1, squeeze=False)
        for row, method in zip(panels, methods, strict=True):
            for axes, shown in zip(row, [image, *(own[method, fraction] for fraction in fractions)], strict=True):
                show_image(axes, shown.numpy())
            row[0].set_ylabel(plain(method, 22), rotation=0, ha="right", va="center", fontsize=8, color=INK)
        for axes, fraction in zip(panels[0], [None, *fractions], strict=True):
            title = "image" if fraction is None else short_percent(fraction)
            axes.set_title(title, loc="center", fontsize=8, color=INK)
    return figure
