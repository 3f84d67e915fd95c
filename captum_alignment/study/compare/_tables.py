"""The tables of the report that compares runs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.compare._coordinates import first_of_groups
from captum_alignment.study.compare._epsilons import as_text
from captum_alignment.study.compare._notices import DIFFERS
from captum_alignment.study.compare._summary import (
    BY_CLASS,
    QUANTITIES,
    by_class,
    certified_accuracy,
    is_certified,
    robust_accuracy_over_seeds,
)
from captum_alignment.study.evaluation import BY_ATTACK, Run, title
from captum_alignment.study.page import Column, Table, count, p_value, percent


def _medians(*names: str) -> tuple[Column, ...]:
    """Medians of columns of the records, each under its title."""
    return tuple(Column(name, title(name)) for name in names)


#: Quantities whose medians stand in other tables than the first, which has all others; these first.
_OTHERS = ("direction_gap", "bias_gap", "binarized_alignment", "bound", "deviation")
_FIRST = ("distance", "linearized_robustness", "alignment", "null", "excess", "rank")
_RUN = Column("run", "run", str)


def _coordinate(value: Any) -> str:
    return "–" if pd.isna(value) else f"{value:g}"


_COORDINATES = (
    Column("training", "training", str),
    Column("strength", "strength", _coordinate),
    Column("training_seed", "seed", _coordinate),
)
_TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "summary": (
        "medians of every run",
        (
            Column("n", "samples", count),
            Column("errors", "errors", count),
            Column("accuracy", "accuracy", percent),
            *_medians(*dict.fromkeys([*_FIRST, *(name for name in QUANTITIES if name not in _OTHERS)])),
            Column("class_p", "p of its class", p_value),
        ),
    ),
    "correlations": (
        "rank correlations over the samples of every run",
        (
            Column("spearman_linearized_distance", "r(ρ̃, ρ)"),
            Column("spearman_linearized_distance_n", "pairs", count),
            Column("spearman_linearized_alignment", "r(ρ̃, α)"),
            Column("spearman_linearized_alignment_n", "pairs", count),
            Column("spearman_alignment_distance", "r(α, ρ)"),
            Column("spearman_alignment_distance_n", "pairs", count),
            *_medians("deviation"),
        ),
    ),
    "split": (
        "why robustness and alignment differ, run by run",
        (
            *_medians("linearized_robustness"),
            Column("alignment", "= α"),
            Column("direction_gap", "+ direction gap"),
            Column("bias_gap", "+ bias gap"),
            Column("direction_larger", "direction gap larger", percent),
            *_medians("binarized_alignment", "bound"),
        ),
    ),
}
_CLASS = (
    Column("n", "samples", count),
    Column("accuracy", "accuracy", percent),
    *_medians(*BY_CLASS),
)


def summary_tables(
    runs: Sequence[Run], summary: pd.DataFrame, groups: Sequence[Sequence[Run]], epsilons: Sequence[float] = ()
) -> dict[str, Table]:
    """summary, distances, correlations and split of all ``runs``, and robust-accuracy of the ``groups``."""
    tables = {name: Table(name, label, summary, (_RUN, *columns)) for name, (label, columns) in _TABLES.items()}
    if "training" in summary:
        first = tables["summary"]
        tables["summary"] = replace(first, columns=(_RUN, *_COORDINATES, *first.columns[1:]))
    attacks = dict.fromkeys(attack for run in runs for attack in run.attacks)
    distances = (_RUN, *(Column(f"{BY_ATTACK}{name}", name) for name in attacks), Column("found", "found", percent))
    tables["distances"] = Table("distances", "median distance by attack", summary, distances)
    tables["robust-accuracy"] = _robust_table(groups, epsilons)
    return tables


def _robust_table(groups: Sequence[Sequence[Run]], epsilons: Sequence[float]) -> Table:
    """At eps = 0 and at each of the ``epsilons``; beside it what is certified."""
    eps = np.array([0.0, *epsilons])
    frame, columns = pd.DataFrame({"eps": eps}), [Column("eps", "ε", as_text)]
    for number, (run, group) in enumerate(zip(first_of_groups(groups), groups, strict=True)):
        curves = {run.name: robust_accuracy_over_seeds(group, eps)}
        if is_certified(run):
            curves[f"{run.name}, certified"] = certified_accuracy(run, eps)
        for kind, (head, curve) in enumerate(curves.items()):
            for end in ("", "_low", "_high"):
                frame[f"{number}.{kind}{end}"] = curve[end.removeprefix("_") or "share"]
            columns.append(Column(f"{number}.{kind}", head, percent, head))
    return Table("robust-accuracy", "robust accuracy of every run", frame, tuple(columns))


def class_table(run: Run, number: int) -> Table:
    """Medians by class of the run with that number."""
    head = "class" if run.labelled.any() else "predicted class"
    frame = by_class(run)
    named = (frame["name"] != frame["class"].astype(str)).any()
    names = (Column("name", "name", str),) if named else ()
    columns = (Column("class", head, str), *names, *_CLASS)
    return Table(f"classes-{number}", f"medians by class of {run.name}", frame, columns, tall=True)


def side_by_side(id: str, label: str, names: Sequence[str], frame: pd.DataFrame, marked: frozenset[int]) -> Table:
    """A column per run; the rows that differ are marked."""
    runs = [Column(str(number), name, str, name) for number, name in enumerate(names)]
    differs = [Column(DIFFERS, "≠", str)] if len(names) > 1 else []
    return Table(id, label, frame, (Column("name", "name", str), *runs, *differs), marked)
