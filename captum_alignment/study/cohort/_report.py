"""The report of a study: that of its runs, and a page of claims before it."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from captum_alignment.study.cohort._claims import Verdict
from captum_alignment.study.cohort._cohort import Cohort
from captum_alignment.study.cohort._config import DATASETS, PRESETS, StudyConfig, as_options, make_config
from captum_alignment.study.cohort._figures import alignment_figure, far_sentence, strengths_figure
from captum_alignment.study.compare import TIMES_CHANCE, USABLE, coordinates, page_of_runs
from captum_alignment.study.evaluation import Run, title
from captum_alignment.study.fit import STANDARD, TRAININGS
from captum_alignment.study.page import PERCENT, Column, Picture, Table, percent, picture, setting, write_page
from captum_alignment.study.store import whole_file

_LEVELS = {
    **{name: title(name) for name in ("distance", "linearized_robustness", "alignment", "null")},
    TIMES_CHANCE: "α / chance",
}
_ALIGNMENT = (
    f"Median alignment against median robustness, with the {PERCENT} intervals of both; along a curve the strength "
    "grows. Dashed, the alignment that the maps of other images would give. Crosses are strengths that cost too much "
    "accuracy."
)
_STRENGTHS = (
    f"Over the strength, with {PERCENT} intervals. Strengths on grey ground have a network below the dashed line of "
    "accuracy and are left out of the verdicts."
)


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        records: a row per network and sample, its coordinates (training, strength, training_seed) before its numbers.
        summary: a row per network: medians over its samples, each with its interval.
        verdicts: of every claim, training by training. basis: what they rest on. report: its path.
    """

    records: pd.DataFrame
    summary: pd.DataFrame
    verdicts: list[Verdict]
    basis: str
    report: Path


def write_study_report(
    result: StudyResult,
    configs: Sequence[StudyConfig],
    runs: Sequence[Run],
    cohorts: Sequence[Cohort],
    train_size: int,
    command: str,
) -> None:
    """Write ``result.report``, of the study of ``runs``, and its figures beside it; every text is escaped.

    It prints the ``command`` that makes it, unless that is empty.
    """
    config, path = configs[0], result.report
    page = page_of_runs(runs, result.summary, drawn_groups(runs, cohorts))
    pictures = {
        "alignment": picture(alignment_figure(cohorts), _ALIGNMENT + far_sentence(cohorts)),
        "strengths": picture(strengths_figure(cohorts), _STRENGTHS),
    }
    _keep({**pictures, **page["pictures"]}, path.with_name("figures"))
    write_page(
        path,
        "study.html.jinja",
        **page,
        name=path.resolve().parent.name,
        dataset=DATASETS[config.dataset][0],
        seeds=config.seeds,
        train_size=train_size,
        trainings={cohort.training: TRAININGS[cohort.training] for cohort in cohorts},
        claims=_by_claim(result.verdicts),
        tally=_tally(result.verdicts),
        basis=result.basis,
        levels=_levels_table(cohorts),
        usable_share=USABLE,
        study_pictures=pictures,
        training_settings=_settings(config),
        command=command,
    )


def drawn_groups(runs: Sequence[Run], cohorts: Sequence[Cohort]) -> list[list[Run]]:
    """The networks that are drawn, each with those of the other training seeds.

    All of a single training; of several the plain one, and of each the usable strength with the largest distances.
    """
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        at = coordinates(run)
        groups.setdefault((at["training"], at["strength"]), []).append(run)
    if len(cohorts) == 1:
        return list(groups.values())
    chosen = [(STANDARD, 0.0)]
    for cohort in cohorts:
        rho = cohort.medians["distance"].mean(axis=1)
        chosen += [(cohort.training, float(cohort.strengths[k])) for k in (-rho).argsort() if cohort.usable[k]][:1]
    return [groups[key] for key in chosen if key in groups]


def reproduce(
    configs: Sequence[StudyConfig], out: Path, *, data_root: str | Path | None = None, download: bool = False
) -> str:
    """The shortest command that gives this study: a preset where one was followed, and the options that differ.

    Empty for several trainings with strengths of their own, which the command has no options for.
    """
    config = configs[0]
    if len(configs) > 1 and any("strengths" in _changes(one, None) for one in configs):
        return ""
    presets = (None, *PRESETS) if len(configs) == 1 else (None,)
    found = {preset: _changes(config, preset) for preset in presets}
    found = {preset: changed for preset, changed in found.items() if "regularizer" not in changed}
    preset = min(found, key=lambda name: len(found[name]))
    regularizers = [one.regularizer for one in configs]
    command = ["captum-alignment", "study"]
    command += ["--preset", preset] if preset else ["--dataset", config.dataset]
    command += [] if preset or regularizers == ["lipschitz"] else ["--regularizer", *regularizers]
    command += [] if data_root is None else ["--data-root", str(data_root)]
    command += ["--download"] if download else []
    return shlex.join([*command, *as_options(found[preset]), "--out", str(out)])


def _changes(config: StudyConfig, preset: str | None) -> dict[str, Any]:
    """What ``config`` says otherwise than the preset, or than the defaults of its data set and regularizer."""
    own = {"preset": preset} if preset else {"dataset": config.dataset, "regularizer": config.regularizer}
    base = make_config(**own).as_dict()
    return {key: value for key, value in config.as_dict().items() if value != base[key]}


def _settings(config: StudyConfig) -> dict[str, str]:
    values = {
        key.replace("_", " "): setting(value)
        for key, value in config.as_dict().items()
        if key not in ("regularizer", "strengths", "decay_every")
    }
    values["learning rate"] += (
        ", along a cosine to 0" if config.decay_every is None else f", a tenth every {config.decay_every} epochs"
    )
    return values


def _by_claim(verdicts: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Every claim with its verdict on each training."""
    claims = dict.fromkeys(verdict.claim for verdict in verdicts)
    return [(claim, [verdict for verdict in verdicts if verdict.claim == claim]) for claim in claims]


def _tally(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.status for verdict in verdicts)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def _levels_table(cohorts: Sequence[Cohort]) -> Table:
    """One row per training and strength: means over the seeds of accuracy and medians."""
    rows: list[dict[str, Any]] = []
    for cohort in cohorts:
        levels = {name: cohort.level(name) for name in _LEVELS}
        for s, strength in enumerate(cohort.strengths):
            row = {"training": cohort.training, "strength": strength, "accuracy": cohort.accuracy[s].mean()}
            for name, (middle, low, high) in levels.items():
                row |= {name: middle[s], f"{name}_low": low[s], f"{name}_high": high[s]}
            rows.append({**row, "usable": "" if cohort.usable[s] else "left out"})
    columns = [
        Column("training", "training", str),
        Column("strength", "strength", "{:g}".format),
        Column("accuracy", "accuracy", percent),
        *(Column(name, head) for name, head in _LEVELS.items()),
        Column("usable", "", str),
    ]
    return Table("levels", "medians of every training and strength", pd.DataFrame(rows), columns)


def _keep(pictures: Mapping[str, Picture], folder: Path) -> None:
    """The figures as files, for use elsewhere than in the report."""
    for name, shown in pictures.items():
        with whole_file(folder / f"{name}.png") as temporary:
            temporary.write_bytes(shown.image)
