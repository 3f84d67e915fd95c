"""The report that compares methods of training: alignment against robustness, and every claim, method by method."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_alignment.study._config import StudyConfig
from captum_alignment.study._files import whole_file
from captum_alignment.study._methods import METHODS
from captum_alignment.study._page import Picture, write_page
from captum_alignment.study._statistics import Array, interval
from captum_alignment.study._study import StudyResult
from captum_alignment.study._style import MUTED, STYLE, WIDTH, run_style
from captum_alignment.study._summary import TIMES_CHANCE, Cohort, cohort_of
from captum_alignment.study._tables import Column, Table, percent

Studies = Mapping[str, tuple[StudyConfig, StudyResult]]
_GLYPHS = {"supported": "✓", "contradicted": "✗", "not distinguishable": "≈", "not testable": "–"}
_QUANTITIES = {
    "distance": "ρ",
    "linearized_robustness": "ρ̃",
    "alignment": "α",
    "null": "chance",
    TIMES_CHANCE: "α / chance",
}


def write_methods_report(path: Path, studies: Studies) -> None:
    """Write the report that compares ``studies``, by the name of their method, to ``path``, its figure beside it."""
    cohorts = {name: cohort_of(result.records, METHODS[name].symbol) for name, (_, result) in studies.items()}
    config, result = next(iter(studies.values()))
    figure = path.with_name("alignment.png")
    with whole_file(figure) as temporary:
        methods_figure(cohorts).savefig(temporary, format="png")
    write_page(
        path,
        "methods.html.jinja",
        name=path.resolve().parent.name,
        config=config,
        samples=next(iter(cohorts.values())).n,
        methods=[(name, METHODS[name]) for name in studies],
        alignment=Picture(figure, _CAPTION, alt=_CAPTION),
        levels=Table("levels", "medians of every method and strength", _levels(cohorts), _level_columns()),
        verdicts=_verdicts(studies),
        claims=[verdict.claim for verdict in result.verdicts],
        glyphs=_GLYPHS,
    )


_CAPTION = (
    "Median alignment against median robustness, a curve for each method along its strengths, with the 95 % intervals "
    "of both; strengths that cost too much accuracy are left out. Hollow, the alignment that the maps of other images "
    "would give. All curves begin at the same plainly trained networks."
)


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


def _levels(cohorts: Mapping[str, Cohort]) -> pd.DataFrame:
    """One row per method and strength: means over the seeds of accuracy and medians, with intervals where usable."""
    rows = []
    for name, cohort in cohorts.items():
        bounds = {quantity: interval(cohort.replicates[quantity].mean(axis=2)) for quantity in _QUANTITIES}
        for s, strength in enumerate(cohort.strengths):
            row = {"method": name, "strength": float(strength), "accuracy": float(cohort.accuracy[s].mean())}
            for quantity, (low, high) in bounds.items():
                row[quantity] = float(cohort.medians[quantity][s].mean())
                row |= {f"{quantity}_low": float(low[s]), f"{quantity}_high": float(high[s])}
            rows.append({**row, "usable": "" if cohort.usable[s] else "left out"})
    return pd.DataFrame(rows)


def _level_columns() -> list[Column]:
    return [
        Column("method", "method", str),
        Column("strength", "strength", "{:g}".format),
        Column("accuracy", "accuracy", percent),
        *(Column(name, head) for name, head in _QUANTITIES.items()),
        Column("usable", "", str),
    ]


def _verdicts(studies: Studies) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every claim with the status and the evidence of each method."""
    by_claim: dict[str, list[tuple[str, str]]] = {}
    for _, result in studies.values():
        for verdict in result.verdicts:
            by_claim.setdefault(verdict.claim, []).append((verdict.status, verdict.evidence))
    return list(by_claim.items())
