"""The figures of the diagnosis, run by run: the exact split, the terms of the margin, and how straight it falls."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from captum_alignment.study.compare._diagnosis import run_profile, top_terms
from captum_alignment.study.compare._figures import legend, run_axis
from captum_alignment.study.compare._summary import in_norm
from captum_alignment.study.evaluation import BACK, FORWARD, Run
from captum_alignment.study.page import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    STYLE,
    VERMILION,
    WIDTH,
    Array,
    labels,
    percent_axis,
    plain,
    run_style,
)

#: Colour, marker and label of rho~ and of the terms that it is the sum of.
_SPLIT = {
    "alignment": (INK, "o", "α"),
    "direction_gap": (BLUE, "v", "direction gap"),
    "bias_gap": (GREEN, "s", "bias gap"),
    "linearized_robustness": (VERMILION, "D", "ρ̃, their sum"),
}


def run_split_figure(runs: Sequence[Run], summary: pd.DataFrame) -> Figure:
    """The terms of rho~ = alpha + direction gap + bias gap, one row per run, and apart from them the bound."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 1.4 + 0.42 * len(runs)), layout="constrained")
        split, bound = figure.subplots(1, 2, width_ratios=(1.6, 1), sharey=True)
        split.axvline(0, color=MUTED, lw=0.8)
        offsets = np.linspace(-0.27, 0.27, len(_SPLIT))
        marks = [_marks(split, summary, name, *_SPLIT[name], y) for name, y in zip(_SPLIT, offsets, strict=True)]
        marks.append(_marks(bound, summary, "bound", MUTED, "|", "upper bound of ρ̃", -0.1))
        _marks(bound, summary, "linearized_robustness", *_SPLIT["linearized_robustness"][:2], "ρ̃", 0.1)
        split.set_title("Exact split")
        bound.set_title("Upper bound, not an estimate")
        bound.set_xlim(left=0)
        for axes in (split, bound):
            axes.set_xlabel(in_norm("median", runs))
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
        _terms_panel(axes, shares.to_numpy(), names, labels([run.name for run in runs], 16 if len(runs) > 3 else 24))
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
        _profile_panel(forward, runs, FORWARD, "To the linearized boundary", "of the step of length ρ̃")
        _profile_panel(back, runs, BACK, "To the nearest adversarial", "of the way of length ρ")
        _link_panel(linked, summary)
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


def _profile_panel(axes: Axes, runs: Sequence[Run], prefix: str, title: str, way: str) -> None:
    """Median profiles of the margin along a way, beside the straight line."""
    for number, run in enumerate(runs):
        axes.plot(*run_profile(run, prefix), label=run.name, **{**run_style(number), "lw": 1.2})
    axes.plot([0, 1], [1, 0], color=INK, lw=1, ls=(0, (4, 3)), label="1 − t, linear")
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set_title(title)
    axes.set_xlabel(way)
    axes.set_ylabel("margin, relative to t = 0")
    percent_axis(axes.xaxis)


def _link_panel(axes: Axes, summary: pd.DataFrame) -> None:
    """The link of alpha and rho over the deviation from linearity, a point with its intervals for each run."""
    for number, row in enumerate(summary.to_dict("records")):
        x, y = (
            [row[f"{name}{end}"] for end in ("", "_low", "_high")]
            for name in ("deviation", "spearman_alignment_distance")
        )
        style = run_style(number)
        axes.hlines(y[0], x[1], x[2], colors=style["color"], lw=1)
        axes.vlines(x[0], y[1], y[2], colors=style["color"], lw=1)
        axes.scatter(x[0], y[0], color=style["color"], marker=style["marker"], s=22, zorder=3)
    axes.margins(0.12)
    axes.set_title("Linearity and the link")
    axes.set_xlabel("median deviation from 1 − t")
    # Of a nearly linear network a factor that all ticks share would lie on the label.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_ylabel("r(α, ρ) over samples")


def _terms_panel(axes: Axes, shares: Array, names: Sequence[str], columns: Sequence[str]) -> None:
    """Median shares (terms, models) as a shaded table; the first row is the input's, which is not shaded."""
    top = float(np.nanmax(shares[1:], initial=1e-9))
    shaded = np.vstack([np.full_like(shares[:1], np.nan), shares[1:]])
    axes.imshow(shaded, cmap="Blues", vmin=0, vmax=1.25 * top, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        color = "white" if i and share > 0.75 * top else INK
        text = "–" if np.isnan(share) else f"{100 * share:.1f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    axes.axhline(0.5, color=MUTED, lw=0.8)
    axes.set_yticks(range(len(names) + 1), ["input ⟨x, ∇Ψ†⟩", *names])
    axes.set_xticks(range(len(columns)), columns)
    axes.set_title("Median |term|, % of the sum over all terms")
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
