"""The figures that compare runs: distributions and robust accuracy."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from captum_alignment.study.compare._coordinates import first_of_groups
from captum_alignment.study.compare._scatter import far_apart
from captum_alignment.study.compare._summary import in_norm, robust_accuracy_over_seeds
from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import (
    BLUE,
    INK,
    MUTED,
    STYLE,
    WIDTH,
    Array,
    labels,
    percent_axis,
    run_style,
    short_percent,
)

_PANELS = {"distance": "ρ, distance", "linearized_robustness": "ρ̃, linearized robustness", "alignment": "α, alignment"}
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_STEPS = 400
#: Letters of a run's name in a legend of three columns, and of two where some are longer.
_SHORT, _LONG = 24, 40


def distribution_figure(runs: Sequence[Run]) -> Figure:
    """Quantiles of rho, rho~ and alpha, one row per run; below alpha, in grey, its chance level."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 0.8 + 0.32 * len(runs)), layout="constrained")
        panels = figure.subplots(1, len(_PANELS), sharey=True)
        for axes, (name, label) in zip(panels, _PANELS.items(), strict=True):
            names = (name, "null") if name == "alignment" else (name,)
            logarithmic = far_apart(known(run, name) for run in runs)
            right = _value_axis(axes, [known(run, each) for run in runs for each in names], logarithmic)
            for row, run in enumerate(runs):
                _quantiles(axes, known(run, name), row - (0.13 if len(names) > 1 else 0), right, BLUE, INK)
                if len(names) > 1:
                    _quantiles(axes, known(run, "null"), row + 0.2, right, "#a8a8a8", MUTED)
            axes.set_xlabel(in_norm(label, runs))
            run_axis(axes, runs)
    return figure


def robust_accuracy_figure(groups: Sequence[Sequence[Run]]) -> Figure:
    """The share of samples that stay right (without labels: as they are) against eps, with bands.

    A curve is a run, or the mean over a group of runs that differ in the training seed alone.
    """
    runs = first_of_groups(groups)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2 + 0.17 * -(-len(runs) // 3)), layout="constrained")
        axes = figure.subplots()
        eps = eps_grid(runs, _STEPS)
        lines = []
        for number, group in enumerate(groups):
            curve, style = robust_accuracy_over_seeds(group, eps), run_style(number)
            axes.fill_between(eps, curve["low"], curve["high"], step="post", color=style["color"], alpha=0.13, lw=0)
            lines += axes.plot(eps, curve["share"], drawstyle="steps-post", color=style["color"], ls=style["ls"])
        robust_axes(axes, runs, eps)
        legend(figure, lines, runs)
    return figure


def robust_axes(axes: Axes, runs: Sequence[Run], eps: Array) -> None:
    """The axes of robust accuracy against ``eps``, in the norm of the runs."""
    if eps[0] > 0:
        _logarithmic(axes)
    axes.set_xlim(eps[0], eps[-1])
    axes.set_ylim(0, 1.02)
    percent_axis(axes.yaxis)
    axes.set_xlabel(in_norm("ε, size of the perturbation", runs))
    axes.set_ylabel(
        "share that is right, with ρ > ε" if all(run.labelled.any() for run in runs) else "share with ρ > ε"
    )


def beyond_sentence(runs: Sequence[Run]) -> str:
    """How many finite distances lie outside the axis of robust accuracy, whose curves do not show them; "" for none."""
    eps = eps_grid(runs, 2)
    distances = np.concatenate([np.empty(0), *(known(run, "distance") for run in runs)])
    above = int(((distances > eps[-1]) & np.isfinite(distances)).sum())
    below = int((distances < eps[0]).sum())
    parts = [f"{count:,} {where}" for count, where in ((below, "below"), (above, "above")) if count]
    return f" Of the finite distances {' and '.join(parts)} the ends of the axis are not shown." if parts else ""


def eps_grid(runs: Sequence[Run], steps: int) -> Array:
    """From 0 to what nearly all found distances stay below; logarithmic where runs are far apart."""
    distances = [known(run, "distance") for run in runs]
    finite = [values[np.isfinite(values)] for values in distances]
    top = max((float(np.quantile(values, 0.99)) for values in finite if len(values)), default=1.0) or 1.0
    if not far_apart(distances):
        return np.linspace(0, 1.05 * top, steps)
    bottom = min(float(np.quantile(values[values > 0], 0.02)) for values in finite if (values > 0).any())
    return np.geomspace(bottom, 1.05 * top, steps)


def run_axis(axes: Axes, runs: Sequence[Run]) -> None:
    """One row per run, the first on top."""
    axes.set_yticks(range(len(runs)), labels([run.name for run in runs]))
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    for row in range(1, len(runs), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f4", lw=0, zorder=0)


def legend(figure: Figure, lines: Sequence[Line2D], runs: Sequence[Run], *more: Line2D) -> None:
    names = [run.name for run in runs]
    short = max(map(len, names), default=0) <= _SHORT
    texts = [*labels(names, _SHORT if short else _LONG), *(str(line.get_label()) for line in more)]
    figure.legend([*lines, *more], texts, loc="outside lower center", ncols=3 if short else 2, handlelength=2.6)


def known(run: Run, name: str) -> Array:
    values = run.values(name)
    return values[~np.isnan(values)]


def _value_axis(axes: Axes, samples: Sequence[Array], logarithmic: bool) -> float:
    """Linear from 0, or logarithmic, to what nearly all samples stay below; where it ends."""
    finite = [values[np.isfinite(values)] for values in samples]
    top = max((float(np.quantile(values, 0.95)) for values in finite if len(values)), default=1.0) or 1.0
    if logarithmic:
        _logarithmic(axes)
        bottom = min(float(np.quantile(values[values > 0], 0.05)) for values in finite if (values > 0).any())
        axes.set_xlim(bottom / 1.3, 1.3 * top)
    else:
        axes.set_xlim(0, 1.06 * top)
    return axes.get_xlim()[1]


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _quantiles(axes: Axes, values: Array, row: float, right: float, bar: str, dot: str) -> None:
    """The central 90 % as a line, 50 % as a bar, the median as a dot, and how much is infinite."""
    if not len(values):
        axes.annotate(
            "no values", (0.02, row), xycoords=("axes fraction", "data"), va="center", color=MUTED, fontsize=7
        )
        return
    low, lower, middle, upper, high = np.quantile(values, _LEVELS, method="inverted_cdf").clip(max=right)
    axes.hlines(row, low, high, color=bar, lw=1)
    axes.hlines(row, lower, upper, color=bar, lw=5, alpha=0.55)
    infinite = float(np.isinf(values).mean())
    if middle < right:
        axes.plot([middle], [row], "o", color=dot, ms=4, zorder=3)
    if infinite:
        share = f"∞ {short_percent(round(infinite, 2))}" if infinite >= 0.005 else "∞ <1 %"
        above = axes.get_yaxis_transform()
        axes.text(1, row - 0.1, share, transform=above, ha="right", va="bottom", color=MUTED, fontsize=6.5)
