"""Where a run stands in a study: how its network was trained, at which strength, and from which seed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from captum_alignment.study.evaluation import Run, read_run

#: What the configuration of a run of a study says about its network.
COORDINATES = ("training", "strength", "training_seed")
#: Where the folder of a study keeps its runs, each an ordinary evaluation.
EVALUATIONS = "evaluations"


def coordinates(run: Run) -> dict[str, Any]:
    """The `COORDINATES` of ``run``; nothing where it is not of a study."""
    found = {name: run.config[name] for name in COORDINATES if name in run.config}
    numbers = [found.get(name) for name in COORDINATES[1:]]
    return found if "training" in found and all(isinstance(one, int | float) for one in numbers) else {}


def is_study(folder: str | Path) -> bool:
    """Whether ``folder`` keeps several runs."""
    return (Path(folder) / EVALUATIONS).is_dir()


def runs_in(folder: str | Path) -> list[Run]:
    """The run in ``folder``, or those of the study that it holds, in the order of their coordinates.

    Raises:
        ValueError: neither is there, or not finished.
    """
    if not is_study(folder):
        return [read_run(folder)]
    runs = [read_run(one) for one in sorted((Path(folder) / EVALUATIONS).iterdir()) if one.is_dir()]
    if not runs:
        raise ValueError(f"folder: {folder} holds a study without a finished evaluation; the same command continues it")
    # Plain training first, as its strength is 0 whatever the others are.
    return sorted(runs, key=lambda run: _place(coordinates(run)))


def first_of_groups(groups: Sequence[Sequence[Run]]) -> list[Run]:
    """The first of each group of runs that differ in the training seed alone, named by what all have in common."""
    return [replace(group[0], name=_common_name(group)) for group in groups]


def _common_name(group: Sequence[Run]) -> str:
    at = coordinates(group[0])
    if len(group) == 1 or not at:
        return group[0].name
    strength = f" {at['strength']:g}" if at["strength"] else ""
    return f"{at['training']}{strength}, {len(group)} seeds"


def _place(found: dict[str, Any]) -> tuple[Any, ...]:
    training, strength, seed = (found.get(name, "") for name in COORDINATES)
    return (bool(strength), str(training), strength or 0.0, seed or 0)
