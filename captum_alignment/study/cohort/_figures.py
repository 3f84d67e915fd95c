"""The figures of the cohort, drawn with matplotlib's object interface (no pyplot state, no display)."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.compare import CORRELATIONS, USABLE
from captum_alignment.study.page import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PINK,
    STYLE,
    VERMILION,
    WIDTH,
    Array,
    Cloud,
    interval,
    scatter_panels,
    upto,
)

_CURVES = {
    "distance": (INK, "o", "ρ, smallest over attacks"),
    "linearized_robustness": (VERMILION, "D", "ρ̃, linearized"),
    "distance_gradient": (ORANGE, "^", "gradient attack"),
    "distance_deepfool": (GREEN, "v", "DeepFool"),
    "distance_ddn": (BLUE, "s", "DDN"),
    "distance_carlini-wagner": (PINK, "P", "Carlini-Wagner"),
}


def cohort_figure(cohort: Cohort) -> Figure:
    """Accuracy, robustness and alignment against the regularization strength."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        accuracy, robustness, alignment = figure.subplots(1, 3)
        ticks = np.arange(len(cohort.strengths))
        accuracy.plot(ticks, cohort.accuracy.mean(1), "o-", color=INK)
        accuracy.axhline(USABLE * cohort.accuracy.max(), color=MUTED, lw=0.8, ls=(0, (4, 3)))
        accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        accuracy.set_title("Accuracy")
        for name in ("linearized_robustness", "distance_gradient", "distance"):
            if name in cohort.values:
                band(robustness, cohort, name, *_CURVES[name])
        robustness.set_title("Median robustness")
        band(alignment, cohort, "alignment", INK, "o", "α")
        band(alignment, cohort, "null", MUTED, "", "chance level", ls="--")
        alignment.set_title("Median alignment")
        for axes in (accuracy, robustness, alignment):
            strength_axis(axes, cohort)
        for axes in (robustness, alignment):
            axes.set_ylim(bottom=0)
            axes.legend(loc="best", handlelength=1.5)
        if not cohort.usable.all():
            accuracy.annotate("grey: left out", (0.04, 0.05), xycoords="axes fraction", color=MUTED, fontsize=8)
    return figure


def alignment_figure(cohort: Cohort) -> Figure:
    """Median alignment against median robustness: one curve per attack and one for rho~, with the chance level."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        axes = figure.subplots()
        keep = cohort.usable
        alpha, null = (cohort.medians[name].mean(1) for name in ("alignment", "null"))
        attacks = [f"distance_{name}" for name in cohort.attacks]
        for number, name in enumerate(["linearized_robustness", *attacks, "distance"]):
            color, marker, label = curve_style(name, number)
            rho = cohort.medians[name].mean(1)
            bold = name == "distance"
            axes.plot(rho[keep], alpha[keep], color=color, marker=marker, label=label, lw=2 if bold else 1.2, zorder=3)
            if bold:
                _crosses(axes, cohort, color)
                axes.plot(rho[keep], null[keep], color=MUTED, ls="--", lw=1.2, label="chance level of α, at ρ")
                _label_ends(axes, cohort, rho[keep], alpha[keep])
        rho = cohort.medians["distance"].mean(1)
        left_out = ~keep & np.isfinite(rho)
        axes.margins(0.08)
        limits = axes.get_xlim()
        inside = left_out & (rho < limits[1] * 1.5)
        if inside.any():
            axes.plot(rho[inside], alpha[inside], "x", color="#a8a8a8", label="left out: too inaccurate", zorder=2)
            for x, y, strength in zip(rho[inside], alpha[inside], cohort.strengths[inside], strict=True):
                axes.annotate(
                    f"{cohort.symbol} = {strength:g}",
                    (x, y),
                    (5, -3),
                    textcoords="offset points",
                    color=MUTED,
                    fontsize=7.5,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("median robustness (l₂ distance, pixels in [0, 1])")
        axes.set_ylabel("median alignment α")
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def scatter_figure(cohort: Cohort, name: str) -> Figure:
    """Sample by sample, one panel per model of the first seed: the two quantities of the correlation ``name``."""
    pair = CORRELATIONS[name]
    kept = cohort.finite(*pair)[:, 0]
    clouds = []
    for s, strength in enumerate(cohort.strengths):
        x, y = (cohort.values[quantity][s, 0, kept[s]] for quantity in pair)
        clouds.append(Cloud(f"{cohort.symbol} = {strength:g}", x, y, usable=bool(cohort.usable[s])))
    of_usable = [cloud for cloud in clouds if cloud.usable] or clouds
    limits = upto(np.concatenate([cloud.x for cloud in of_usable])), upto(np.concatenate([c.y for c in of_usable]))
    return scatter_panels(clouds, pair, limits)


def curve_style(name: str, number: int) -> tuple[str, str, str]:
    """Colour, marker and label of a curve; attacks of a portfolio that has no own style get one by their number."""
    spare = ["#56b4e9", "#7f5539", "#6a4c93", "#999933"]
    return _CURVES.get(name, (spare[number % len(spare)], "X", name.removeprefix("distance_")))


def strength_axis(axes: Axes, cohort: Cohort) -> None:
    """One tick per strength; those that are left out on grey ground."""
    ticks = np.arange(len(cohort.strengths))
    axes.set_xticks(ticks, [f"{strength:g}" for strength in cohort.strengths])
    axes.set_xlabel(f"regularization strength {cohort.symbol}")
    for tick in ticks[~cohort.usable]:
        axes.axvspan(tick - 0.5, tick + 0.5, color="#f1f1f1", lw=0, zorder=0)
    axes.set_xlim(-0.5, len(ticks) - 0.5)


def band(axes: Axes, cohort: Cohort, name: str, color: str, marker: str, label: str, ls: str = "-") -> None:
    """The medians of a quantity over the strengths, with their 95 % intervals."""
    ticks = np.arange(len(cohort.strengths))
    low, high = interval(cohort.replicates[name].mean(axis=2))
    middle = cohort.medians[name].mean(axis=1)
    axes.fill_between(ticks, low, high, color=color, alpha=0.15, lw=0)
    axes.plot(ticks, middle, color=color, marker=marker, ls=ls, label=label)


def _crosses(axes: Axes, cohort: Cohort, color: str) -> None:
    """The intervals of both medians on the curve of the smallest distance."""
    (x, x_replicates), (y, y_replicates) = cohort.levels("distance"), cohort.levels("alignment")
    x_low, x_high = interval(x_replicates)
    y_low, y_high = interval(y_replicates)
    finite = np.isfinite(x_high)
    axes.hlines(y[finite], x_low[finite], x_high[finite], color=color, lw=0.8, alpha=0.5)
    axes.vlines(x[finite], y_low[finite], y_high[finite], color=color, lw=0.8, alpha=0.5)


def _label_ends(axes: Axes, cohort: Cohort, x: Array, y: Array) -> None:
    strengths = cohort.strengths[cohort.usable]
    for index, offset in {0: (-4, -14), len(x) - 1: (6, -14)}.items():
        if len(x) and np.isfinite(x[index]):
            axes.annotate(
                f"{cohort.symbol} = {strengths[index]:g}",
                (x[index], y[index]),
                offset,
                textcoords="offset points",
                color=MUTED,
                fontsize=8,
            )
