"""What runs have in common and what sets them apart: the notices, settings and versions of the report."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import counted, percent, setting

#: Errors of a run, and values of a list, that are shown.
SHOWN = 20
_LIST = 8
DIFFERS = "differs"
_APART = {
    "norm": "perturbations are measured in different norms, so that ρ, ρ̃ and α of different runs are not comparable",
    "dataset": "the data sets differ, so that ρ, ρ̃ and α of different runs are not comparable",
    "attacks": "the attacks differ, so that distances are not comparable: a stronger portfolio finds smaller ones",
}


def notices(runs: Sequence[Run], summary: pd.DataFrame) -> list[str]:
    """What a reader has to know before comparing."""
    found = []
    for key, consequence in _APART.items():
        groups = _groups(runs, lambda run, key=key: run.norm if key == "norm" else show(run.config.get(key)))
        if len(groups) > 1:
            parts = "; ".join(f"{value} in {', '.join(names)}" for value, names in groups.items())
            found.append(f"{consequence[0].upper()}{consequence[1:]} ({parts}).")
    if len(_groups(runs, dataset)) == 1 and len({_samples(run) for run in runs}) > 1:
        found.append("The runs do not hold the same samples: a part of their differences is that of the samples.")
    return found + _misleading(runs, summary)


def _misleading(runs: Sequence[Run], summary: pd.DataFrame) -> list[str]:
    """Runs that would look more robust than they are."""
    found, rows = [], summary.to_dict("records")
    for data in _groups(runs, dataset):
        same = [row for run, row in zip(runs, rows, strict=True) if dataset(run) == data]
        worse = [f"{row['run']} on {percent(row['accuracy'])}" for row in same if not row["usable"]]
        if worse:
            best = percent(max(row["accuracy"] for row in same if row["usable"]))
            found.append(
                f"The best run on this data set is right on {best}, {', '.join(worse)}: a collapsed network is never "
                "easily attacked, and its distances show no robustness."
            )
    for run, row in zip(runs, rows, strict=True):
        count = classes(run)
        if count and row["accuracy_low"] <= 1 / count:
            found.append(
                f"{run.name} is right on {percent(row['accuracy'])}, which may be chance ({percent(1 / count)}, "
                f"{count} classes): do its labels and its inputs come as the model expects them?"
            )
        if row["found"] == 0:
            found.append(f"No attack succeeded on any sample of {run.name}: its ρ says how the attacks fail.")
        if len(run.errors):
            found.append(
                f"{len(run.errors):,} of {len(run.records):,} samples of {run.name} could not be measured and are left "
                "out of all its numbers; they are listed below."
            )
    return found


def classes(run: Run) -> int:
    """How many classes there are, as far as names or labels say; 0 without labels."""
    known = run.values("label")
    known = known[~np.isnan(known)]
    return max(len(run.classes or ()), int(known.max()) + 1, 2) if len(known) else 0


def dataset(run: Run) -> str:
    return show(run.config.get("dataset"))


def facts(runs: Sequence[Run]) -> str:
    """What was measured, on one line."""
    sizes = sorted({len(run.records) for run in runs})
    samples = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    parts = [
        counted(len(runs), "run"),
        "data: " + ", ".join(_groups(runs, dataset)),
        f"{samples} sample{'s' if sizes[-1] != 1 else ''}" + (" each" if len(runs) > 1 else ""),
        "norm: " + ", ".join(_groups(runs, lambda run: run.norm or "not said")),
        "attacks: " + "; ".join(_groups(runs, lambda run: show(run.config.get("attacks")))),
    ]
    return " · ".join(parts)


def settings(runs: Sequence[Run]) -> tuple[pd.DataFrame, frozenset[int]]:
    """One row per setting, one column per run by number; and which rows differ."""
    return _side_by_side([{**_outside(run), **run.config} for run in runs])


def versions(runs: Sequence[Run]) -> tuple[pd.DataFrame, frozenset[int]]:
    """As `settings`, of the software."""
    found = [run.manifest.get("versions") for run in runs]
    return _side_by_side([value if isinstance(value, dict) else {} for value in found])


def show(value: Any) -> str:
    """Any JSON value as short text."""
    if value is None:
        return "–"
    if isinstance(value, list) and len(value) > _LIST:
        return f"{', '.join(map(show, value[: _LIST // 2]))}, … ({len(value):,} in all)"
    if isinstance(value, list):
        return ", ".join(map(show, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return setting(value)


def _outside(run: Run) -> dict[str, Any]:
    """What the manifest says beside the configuration and the versions, such as the hash of the weights."""
    return {key: value for key, value in run.manifest.items() if key not in ("config", "versions")}


def _side_by_side(columns: list[dict[str, Any]]) -> tuple[pd.DataFrame, frozenset[int]]:
    keys = list(dict.fromkeys(key for column in columns for key in column))
    absent = object()
    differing = [any(column.get(key, absent) != columns[0].get(key, absent) for column in columns) for key in keys]
    frame = pd.DataFrame({"name": [str(key).replace("_", " ") for key in keys]}, dtype=object)
    for number, column in enumerate(columns):
        frame[str(number)] = [show(column.get(key)) for key in keys]
    frame[DIFFERS] = ["≠" if differs else "" for differs in differing]
    return frame, frozenset(np.flatnonzero(differing).tolist())


def _groups(runs: Sequence[Run], of: Callable[[Run], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for run in runs:
        groups.setdefault(of(run), []).append(run.name)
    return groups


def _samples(run: Run) -> frozenset[Any]:
    column = "id" if "id" in run.records else "sample"
    return frozenset(run.records[column]) if column in run.records else frozenset()
