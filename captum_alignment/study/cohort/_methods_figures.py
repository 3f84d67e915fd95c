"""Figures that compare methods of training."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.page import MUTED, STYLE, WIDTH, Array, interval, mean_interval, run_style

_STEPS = 200


def methods_figure(cohorts: Mapping[str, Cohort]) -> Figure:
    """Median alignment against median robustness, a curve per method, each with its chance level."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        axes = figure.subplots()
        for number, (name, cohort) in enumerate(cohorts.items()):
            style = run_style(number)
            (rho, rho_replicates), (alpha, alpha_replicates) = cohort.levels("distance"), cohort.levels("alignment")
            null, _ = cohort.levels("null")
            axes.plot(rho, alpha, label=name, zorder=3, **style)
            axes.plot(rho, null, zorder=2, **{**style, "markerfacecolor": "white", "lw": 0.6})
            _intervals(axes, (rho, rho_replicates), (alpha, alpha_replicates), style["color"])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("median robustness (l₂ distance, pixels in [0, 1])")
        axes.set_ylabel("median alignment α")
        axes.tick_params(labelcolor=MUTED)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _intervals(axes: Axes, x: tuple[Array, Array], y: tuple[Array, Array], color: str) -> None:
    (x_low, x_high), (y_low, y_high) = interval(x[1]), interval(y[1])
    finite = np.isfinite(x_high)
    axes.hlines(y[0][finite], x_low[finite], x_high[finite], color=color, lw=0.8, alpha=0.5)
    axes.vlines(x[0][finite], y_low[finite], y_high[finite], color=color, lw=0.8, alpha=0.5)


def robust_figure(cohorts: Mapping[str, Cohort], records: Mapping[str, pd.DataFrame]) -> Figure:
    """Robust accuracy against eps: plain training, and every method at its `shown_strength`; bands over seeds."""
    first = next(iter(cohorts))
    curves = [("plain", records[first], 0.0, MUTED, "--")] if 0 in cohorts[first].strengths else []
    for number, (name, cohort) in enumerate(cohorts.items()):
        style = run_style(number)
        curves.append((name, records[name], cohort.strengths[shown_strength(cohort)], style["color"], style["ls"]))
    joined = np.concatenate([frame["distance"].to_numpy(float)[frame["strength"] == s] for _, frame, s, *_ in curves])
    finite = joined[np.isfinite(joined)]
    eps = np.linspace(0, float(np.quantile(finite, 0.99)) if len(finite) else 1.0, _STEPS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, frame, strength, color, dashes in curves:
            mean, low, high = mean_interval(robust_accuracies(frame, strength, eps))
            axes.fill_between(eps, low, high, color=color, alpha=0.13, lw=0)
            axes.plot(eps, mean, color=color, ls=dashes, label=name)
        axes.set_xlim(0, eps[-1])
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("ε (l₂ distance, pixels in [0, 1])")
        axes.set_ylabel("robust accuracy")
        axes.tick_params(labelcolor=MUTED)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def shown_strength(cohort: Cohort) -> int:
    """The index of the usable strength with the largest median distance, on the mean over seeds."""
    return int(np.where(cohort.usable, cohort.medians["distance"].mean(axis=1), -np.inf).argmax())


def robust_accuracies(records: pd.DataFrame, strength: float, eps: Array) -> Array:
    """(R, E): of every training seed at ``strength``, the share of samples that are right beyond each ``eps``."""
    found = []
    columns = ("training_seed", "label", "prediction", "distance")
    seeds, labels, predictions, distances = (
        records.loc[records["strength"] == strength, name].to_numpy(float) for name in columns
    )
    for seed in np.unique(seeds):
        mine = seeds == seed
        reach = np.sort(distances[mine & (labels == predictions)])
        found.append((len(reach) - np.searchsorted(reach, eps, side="right")) / mine.sum())
    return np.array(found)
