"""The figures of a study, drawn with matplotlib's object interface (no pyplot state, no display)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.compare import USABLE
from captum_alignment.study.evaluation import BY_ATTACK
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
    percent_axis,
    run_style,
)

_CURVES = {
    "distance": (INK, "o", "ρ, smallest over attacks"),
    "linearized_robustness": (VERMILION, "D", "ρ̃, linearized"),
    "distance_gradient": (ORANGE, "^", "gradient attack"),
    "distance_deepfool": (GREEN, "v", "DeepFool"),
    "distance_ddn": (BLUE, "s", "DDN"),
    "distance_carlini-wagner": (PINK, "P", "Carlini-Wagner"),
}
#: Four labels of so many letters fit beside each other.
_SHORT = 24
#: Of attacks that have no curve of their own above.
_SPARE = ("#56b4e9", "#7f5539", "#6a4c93", "#999933")


def alignment_figure(cohorts: Sequence[Cohort]) -> Figure:
    """Median alignment against median robustness, with the chance level.

    A curve for each training; of a single one also a curve for each attack and one for rho~.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        axes = figure.subplots()
        if len(cohorts) == 1:
            for name, color, marker, label in _by_attack(cohorts[0]):
                keep = cohorts[0].usable
                rho, alpha = (cohorts[0].medians[each].mean(axis=1)[keep] for each in (name, "alignment"))
                axes.plot(rho, alpha, color=color, marker=marker, label=label, lw=1.2, zorder=3)
        for number, cohort in enumerate(cohorts):
            label = cohort.training if len(cohorts) > 1 else _CURVES["distance"][2]
            _curve(axes, cohort, run_style(number), label, None if number else "chance level")
        axes.margins(0.08)
        for cohort in cohorts:
            _left_out(axes, cohort)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("median robustness (l₂ distance, pixels in [0, 1])")
        axes.set_ylabel("median alignment α (l₂)")
        longest = max(len(text) for text in axes.get_legend_handles_labels()[1])
        figure.legend(loc="outside lower center", ncols=4 if longest <= _SHORT else 2)
    return figure


def _by_attack(cohort: Cohort) -> Iterator[tuple[str, str, str, str]]:
    """Quantity, colour, marker and label of rho~ and of every attack's distance."""
    for number, name in enumerate(["linearized_robustness", *(BY_ATTACK + name for name in cohort.attacks)]):
        spare = (_SPARE[number % len(_SPARE)], "X", name.removeprefix(BY_ATTACK))
        yield name, *_CURVES.get(name, spare)


def _curve(axes: Axes, cohort: Cohort, style: Mapping[str, Any], label: str, chance: str | None) -> None:
    """The medians of the usable strengths, with the intervals of both, the chance level, and the ends' strengths."""
    keep, color = cohort.usable, style["color"]
    (x, x_low, x_high), (y, y_low, y_high) = (
        [values[keep] for values in cohort.level(name)] for name in ("distance", "alignment")
    )
    axes.plot(x, y, color=color, marker=style["marker"], label=label, lw=2, zorder=3)
    null = cohort.medians["null"].mean(axis=1)[keep]
    axes.plot(x, null, color=color, ls="--", lw=1, label=chance)
    finite = np.isfinite(x_high)
    axes.hlines(y[finite], x_low[finite], x_high[finite], color=color, lw=0.8, alpha=0.5)
    axes.vlines(x[finite], y_low[finite], y_high[finite], color=color, lw=0.8, alpha=0.5)
    strengths = cohort.strengths[keep]
    for index in {0, len(x) - 1} if len(x) else ():
        _strength(axes, cohort, strengths[index], x[index], y[index], (4, -14))


def _left_out(axes: Axes, cohort: Cohort) -> None:
    """Strengths that are not usable, as far as they lie near those that are."""
    rho, alpha = (cohort.medians[name].mean(axis=1) for name in ("distance", "alignment"))
    inside = ~cohort.usable & _near(cohort)
    axes.plot(rho[inside], alpha[inside], "x", color="#a8a8a8", zorder=2)
    for x, y, strength in zip(rho[inside], alpha[inside], cohort.strengths[inside], strict=True):
        _strength(axes, cohort, strength, x, y, (5, -3))


def _near(cohort: Cohort) -> Array:
    """(S,): whether a strength has a median distance, of at most twice the largest of a usable one."""
    rho = cohort.medians["distance"].mean(axis=1)
    return np.isfinite(rho) & (rho <= 2 * rho[cohort.usable].max(initial=0) if cohort.usable.any() else True)


def far_sentence(cohorts: Sequence[Cohort]) -> str:
    """Which strengths `alignment_figure` has no cross for; "" for none."""
    far = [
        f"{cohort.training} {cohort.symbol} = {strength:g}"
        for cohort in cohorts
        for strength in cohort.strengths[~cohort.usable & ~_near(cohort)]
    ]
    return f" Too far to the right to be shown: {', '.join(far)}." if far else ""


def _strength(axes: Axes, cohort: Cohort, strength: float, x: float, y: float, offset: tuple[int, int]) -> None:
    if np.isfinite(x):
        text = f"{cohort.symbol} = {strength:g}"
        axes.annotate(text, (x, y), offset, textcoords="offset points", color=MUTED, fontsize=8)


def strengths_figure(cohorts: Sequence[Cohort]) -> Figure:
    """Accuracy, robustness and alignment against the strength, a row for each training."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.7 * len(cohorts)), layout="constrained")
        for cohort, row in zip(cohorts, figure.subplots(len(cohorts), 3, squeeze=False), strict=True):
            _strengths_row(row, cohort)
    return figure


def _strengths_row(row: Sequence[Axes], cohort: Cohort) -> None:
    accuracy, robustness, alignment = row
    ticks = np.arange(len(cohort.strengths))
    accuracy.plot(ticks, cohort.accuracy.mean(axis=1), "o-", color=INK)
    accuracy.axhline(USABLE * cohort.best, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    percent_axis(accuracy.yaxis)
    for name in ("linearized_robustness", "distance_gradient", "distance"):
        if name in cohort.values:
            _band(robustness, cohort, name, *_CURVES[name])
    _band(alignment, cohort, "alignment", INK, "o", "α")
    _band(alignment, cohort, "null", MUTED, "", "chance level", ls="--")
    for axes, title in zip(row, ("Accuracy", "Median robustness (l₂)", "Median alignment (l₂)"), strict=True):
        axes.set_title(title)
        axes.set_xticks(ticks, [f"{strength:g}" for strength in cohort.strengths])
        axes.set_xlabel(f"{cohort.training}, {cohort.symbol}")
        for tick in ticks[~cohort.usable]:
            axes.axvspan(tick - 0.5, tick + 0.5, color="#f1f1f1", lw=0, zorder=0)
        axes.set_xlim(-0.5, len(ticks) - 0.5)
    for axes in (robustness, alignment):
        axes.set_ylim(bottom=0)
        axes.legend(loc="best", handlelength=1.5)
    if not cohort.usable.all():
        accuracy.annotate("grey: left out", (0.04, 0.05), xycoords="axes fraction", color=MUTED, fontsize=8)


def _band(axes: Axes, cohort: Cohort, name: str, color: str, marker: str, label: str, ls: str = "-") -> None:
    """The medians of a quantity over the strengths, with their intervals."""
    ticks = np.arange(len(cohort.strengths))
    middle, low, high = cohort.level(name)
    axes.fill_between(ticks, low, high, color=color, alpha=0.15, lw=0)
    axes.plot(ticks, middle, color=color, marker=marker, ls=ls, label=label)
