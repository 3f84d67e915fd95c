"""What is certain of runs that were certified: a band of robust accuracy, and of how many samples rho is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_alignment.study.compare._figures import beyond_sentence, eps_grid, legend, robust_axes
from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import STYLE, WIDTH, Array, Column, Picture, Table, percent, picture, run_style

_STEPS = 400
#: rho is known where its two bounds differ by less than this share.
_KNOWN = 0.1
_COLUMNS = (
    Column("run", "run", str),
    Column("lower_bound", "certified"),
    Column("distance", "found by attacks"),
    Column("share", "certified / found"),
    Column("known", "ρ known within 10 %", percent),
    Column("below", "ρ < ρ̃ for certain", percent),
    Column("above", "ρ > ρ̃ for certain", percent),
    Column("lemma_1", "Lemma 1 applies", percent),
    Column("refused", "not certified, because", str),
)


@dataclass(frozen=True)
class Bracket:
    """The section of the report."""

    table: Table
    picture: Picture | None


def bracket(runs: Sequence[Run]) -> Bracket | None:
    """What the certified runs among ``runs``, and those that were refused, have to say; None where there are none."""
    asked = [run for run in runs if run.config.get("certify")]
    if not asked:
        return None
    numbers = {number: run for number, run in enumerate(runs) if run.config.get("certify") and _certified(run).any()}
    frame = pd.DataFrame([bracket_row(run) for run in asked])
    table = Table("bracket", "bounds of ρ from both sides", frame, _COLUMNS)
    caption = (
        "Below the lower line are the samples that are predicted right and certified: no adversarial of size ε exists. "
        "Above the upper line are those for which one was found. Of what lies in the band nobody knows: it holds the "
        "samples on which every attack failed, too, which other curves count as lost."
        + beyond_sentence(list(numbers.values()))
    )
    return Bracket(table, picture(bracket_figure(numbers), caption) if numbers else None)


def bracket_row(run: Run) -> dict[str, Any]:
    """Medians of both bounds and of their ratio, and shares of the samples that have both; NaN without any."""
    both = _certified(run)
    lower, upper, linearized = (run.values(name)[both] for name in ("lower_bound", "distance", "linearized_robustness"))
    finite = np.isfinite(upper) & (upper > 0)
    ratio = lower[finite] / upper[finite]

    def share(hits: Array) -> float:
        return float(np.sum(hits)) / len(lower) if len(lower) else np.nan

    def median(values: Array) -> float:
        return float(np.median(values)) if len(values) else np.nan

    return {
        "run": run.name,
        "lower_bound": median(lower),
        "distance": median(upper),
        "share": median(ratio),
        "known": share(ratio >= 1 - _KNOWN),
        "below": share(upper < linearized),
        "above": share(lower > linearized),
        "lemma_1": share(run.values("lemma_1")[both] == 1),
        "refused": str(run.config.get("refused") or ""),
    }


def band(run: Run, eps: Array) -> tuple[Array, Array]:
    """At each eps the share of samples that are right (without labels: as they are) and certified, or not attacked."""
    counted, right = _certified(run), np.ones(run.measured, dtype=bool)
    if run.labelled.any():
        counted, right = counted & run.labelled, run.correct
    low, high = (run.values(name)[counted & right] for name in ("lower_bound", "distance"))
    n = max(int(counted.sum()), 1)
    return (low[:, None] >= eps).sum(0) / n, (high[:, None] > eps).sum(0) / n


def bracket_figure(runs: dict[int, Run]) -> Figure:
    """Robust accuracy against eps, of ``runs`` by their number: between what is certified and what attacks leave."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2 + 0.17 * -(-len(runs) // 3)), layout="constrained")
        axes, lines = figure.subplots(), []
        eps = eps_grid(list(runs.values()), _STEPS)
        for number, run in runs.items():
            low, high = band(run, eps)
            style = run_style(number)
            axes.fill_between(eps, low, high, step="post", color=style["color"], alpha=0.2, lw=0)
            axes.plot(eps, low, drawstyle="steps-post", color=style["color"], ls=style["ls"], lw=0.8)
            lines += axes.plot(eps, high, drawstyle="steps-post", color=style["color"], ls=style["ls"])
        robust_axes(axes, list(runs.values()), eps)
        legend(figure, lines, list(runs.values()))
    return figure


def _certified(run: Run) -> Array:
    """(n,): which measured samples have both bounds."""
    return ~np.isnan(run.values("lower_bound")) & ~np.isnan(run.values("distance"))
