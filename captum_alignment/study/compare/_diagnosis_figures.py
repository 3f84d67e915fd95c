"""The figures of the diagnosis, run by run: the exact split, the terms of the margin, and how straight it falls."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captum_alignment.study.compare._diagnosis import run_profile, top_terms
from captum_alignment.study.compare._figures import legend, run_axis
from captum_alignment.study.evaluation import BACK, FORWARD, Run
from captum_alignment.study.page import (
    MUTED,
    SPLIT,
    STYLE,
    WIDTH,
    labels,
    link_axes,
    link_panel,
    plain,
    profile_panels,
    run_style,
    terms_panel,
)


def run_split_figure(runs: Sequence[Run], summary: pd.DataFrame) -> Figure:
    """The terms of rho~ = alpha + direction gap + bias gap, one row per run, and apart from them the bound."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.42 * len(runs)), layout="constrained")
        split, bound = figure.subplots(1, 2, width_ratios=(1.6, 1), sharey=True)
        split.axvline(0, color=MUTED, lw=0.8)
        offsets = np.linspace(-0.27, 0.27, len(SPLIT))
        marks = [_marks(split, summary, name, *SPLIT[name], y) for name, y in zip(SPLIT, offsets, strict=True)]
        marks.append(_marks(bound, summary, "bound", MUTED, "|", "upper bound of ρ̃", -0.1))
        _marks(bound, summary, "linearized_robustness", *SPLIT["linearized_robustness"][:2], "ρ̃", 0.1)
        split.set_title("Exact split, medians")
        bound.set_title("Upper bound, not an estimate")
        bound.set_xlim(left=0)
        for axes in (split, bound):
            run_axis(axes, runs)
        figure.legend(marks, [str(mark.get_label()) for mark in marks], loc="outside lower center", ncols=5)
    return figure


def run_terms_figure(runs: Sequence[Run]) -> Figure:
    """Median shares of the largest terms of the margin, a column per run."""
    shares = top_terms(runs)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(shares)), layout="constrained")
        axes = figure.subplots()
        names = [plain(name, 30) for name in shares.index[1:]]
        terms_panel(axes, shares.to_numpy(), names, labels([run.name for run in runs], 16 if len(runs) > 3 else 24))
        if len(runs) > 3:
            axes.tick_params(axis="x", rotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    return figure


def run_linearity_figure(runs: Sequence[Run], summary: pd.DataFrame) -> Figure:
    """Median profiles of the margin beside the straight line, and the link of alpha and rho over the deviation."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9 + 0.17 * -(-(len(runs) + 1) // 3)), layout="constrained")
        forward, back, linked = figure.subplots(1, 3)
        curves = [
            (axes, *run_profile(run, prefix), run.name, run_style(number))
            for axes, prefix in ((forward, FORWARD), (back, BACK))
            for number, run in enumerate(runs)
        ]
        profile_panels(forward, back, curves)
        link_axes(linked)
        columns = [[name, f"{name}_low", f"{name}_high"] for name in ("deviation", "spearman_alignment_distance")]
        points = [summary[names].to_numpy(float).T for names in columns]
        styles = [run_style(number) for number in range(len(runs))]
        link_panel(linked, points[0], points[1], [s["color"] for s in styles], [s["marker"] for s in styles])
        lines = forward.get_lines()
        legend(figure, lines[: len(runs)], runs, lines[len(runs)])
    return figure


def _marks(axes: Axes, summary: pd.DataFrame, name: str, color: str, marker: str, label: str, offset: float) -> Line2D:
    """The finite medians of a quantity with their intervals, an infinite bound left open."""
    middle, low, high = (summary[f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    rows = np.arange(len(middle)) + offset
    kept = np.isfinite(middle)
    bounded = kept & np.isfinite(low) & np.isfinite(high)
    axes.hlines(rows[bounded], low[bounded], high[bounded], color=color, lw=1)
    return axes.plot(middle[kept], rows[kept], ls="", color=color, marker=marker, label=label)[0]
