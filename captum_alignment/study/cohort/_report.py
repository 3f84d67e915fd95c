"""The report of a study: one HTML file that needs nothing else."""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from captum_alignment.study.cohort._claims import Verdict
from captum_alignment.study.cohort._config import PRESETS, StudyConfig, as_options, make_config
from captum_alignment.study.compare import USABLE
from captum_alignment.study.fit import TRAININGS
from captum_alignment.study.page import Picture, setting, write_page
from captum_alignment.study.store import versions

_DATASET_NAMES = {
    "digits": "scikit-learn’s digits",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}


def write_report(
    path: Path,
    *,
    config: StudyConfig,
    verdicts: list[Verdict],
    basis: str,
    summary: pd.DataFrame,
    pictures: Mapping[str, Picture],
    galleries: list[Picture],
    train_size: int,
    eval_size: int,
) -> None:
    """Write the report of one study to ``path``; images are embedded, every text is escaped."""
    write_page(
        path,
        "study.html.jinja",
        name=path.resolve().parent.name,
        dataset=_DATASET_NAMES[config.dataset],
        config=config,
        method=TRAININGS[config.regularizer],
        train_size=train_size,
        eval_size=eval_size,
        verdicts=verdicts,
        tally=_tally(verdicts),
        basis=basis,
        rows=summary.to_dict("records"),
        attacks=[c.removeprefix("distance_") for c in summary if _is_attack(str(c))],
        found=summary["found"],
        usable_share=USABLE,
        pictures=pictures,
        galleries=galleries,
        settings=_settings(config),
        command=reproduce(config),
        versions=versions(),
    )


def reproduce(config: StudyConfig) -> str:
    """The shortest command that gives this study: a preset where one was followed, and the options that differ."""
    found = {preset: _changes(config, preset) for preset in (None, *PRESETS)}
    preset = min(found, key=lambda name: len(found[name]))
    command = ["captum-alignment", "study"]
    command += ["--preset", preset] if preset else ["--dataset", config.dataset]
    command += [] if preset or config.regularizer == "lipschitz" else ["--regularizer", config.regularizer]
    command += [] if config.dataset == "digits" else ["--data-root", "DIRECTORY"]
    return shlex.join([*command, *as_options(found[preset])])


def _changes(config: StudyConfig, preset: str | None) -> dict[str, Any]:
    """What ``config`` says otherwise than the preset, or than the defaults of its data set and regularizer."""
    regularizer = {} if preset else {"regularizer": config.regularizer}
    base = make_config(preset=preset, dataset=config.dataset, **regularizer).as_dict()
    return {key: value for key, value in config.as_dict().items() if value != base[key]}


def _is_attack(column: str) -> bool:
    return column.startswith("distance_") and not column.endswith(("_low", "_high"))


def _settings(config: StudyConfig) -> dict[str, str]:
    values = {key.replace("_", " "): setting(value) for key, value in config.as_dict().items()}
    del values["decay every"]
    values["learning rate"] += (
        ", along a cosine to 0" if config.decay_every is None else f", a tenth every {config.decay_every} epochs"
    )
    return values


def _tally(verdicts: list[Verdict]) -> str:
    counts = Counter(verdict.status for verdict in verdicts)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())
