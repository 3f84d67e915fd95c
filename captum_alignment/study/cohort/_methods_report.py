"""The report that compares methods of training: alignment against robustness, and every claim, method by method."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from captum_alignment.study.cohort._cohort import TIMES_CHANCE, Cohort, cohort_of
from captum_alignment.study.cohort._config import StudyConfig
from captum_alignment.study.cohort._methods_figures import methods_figure, robust_figure, shown_strength
from captum_alignment.study.cohort._study import StudyResult
from captum_alignment.study.fit import TRAININGS
from captum_alignment.study.page import Column, Picture, Table, interval, percent, write_page
from captum_alignment.study.store import whole_file

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
    cohorts = {name: cohort_of(result.records, TRAININGS[name].symbol) for name, (_, result) in studies.items()}
    config, result = next(iter(studies.values()))
    records = {name: result.records for name, (_, result) in studies.items()}
    write_page(
        path,
        "methods.html.jinja",
        name=path.resolve().parent.name,
        config=config,
        samples=next(iter(cohorts.values())).n,
        methods=[(name, TRAININGS[name]) for name in studies],
        alignment=_drawn(path.with_name("alignment.png"), methods_figure(cohorts), _CAPTION),
        robust=_drawn(path.with_name("robust_accuracy.png"), robust_figure(cohorts, records), _robust_caption(cohorts)),
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


def _drawn(path: Path, figure: Figure, caption: str) -> Picture:
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return Picture(path, caption, alt=caption)


def _robust_caption(cohorts: Mapping[str, Cohort]) -> str:
    shown = ", ".join(f"{name} {cohort.strengths[shown_strength(cohort)]:g}" for name, cohort in cohorts.items())
    return (
        "The share of samples that are predicted right and farther than ε from every adversarial that was found: means "
        "over training seeds with 95 % bands (Student’s t, point by point; none for a single seed). Of every method "
        f"the usable strength with the largest median ρ: {shown}. A better attack lowers the curves."
    )


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
