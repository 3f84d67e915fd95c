"""A study from start to end: train, evaluate, judge, report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from captum_alignment.study.cohort._claims import basis, corrected, verdicts
from captum_alignment.study.cohort._cohort import make_cohorts
from captum_alignment.study.cohort._config import StudyConfig
from captum_alignment.study.cohort._evaluate import evaluate_members, join_records
from captum_alignment.study.cohort._members import Member, make_members
from captum_alignment.study.cohort._report import StudyResult, reproduce, write_study_report
from captum_alignment.study.cohort._train import train_members
from captum_alignment.study.compare import summarise_runs
from captum_alignment.study.evaluation import write_table
from captum_alignment.study.fit import small_network
from captum_alignment.study.load import Data, as_device, load_data
from captum_alignment.study.store import open_folder, read_manifest, write_text


@dataclass(frozen=True, eq=False)
class Study:
    """A finished study, for what builds on it: its first configuration, samples and networks, and what makes them."""

    config: StudyConfig
    data: Data
    make: Callable[[], nn.Module]
    members: list[Member]


#: What the manifest of a study's folder calls it.
STUDY = "study"


def run_study(
    config: StudyConfig | Sequence[StudyConfig],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    download: bool = False,
    device: str = "cpu",
    command: str | None = None,
) -> StudyResult:
    """Train the networks of ``config``, evaluate them on held-out samples, and write records, summary and report.

    Whatever a previous run of the same configuration finished in ``out`` is kept and not repeated; files there are
    either whole or absent. Every evaluation in ``out`` is an ordinary one, which `report` reads.

    Args:
        config: of one way of training, or of several, which differ in regularizer and strengths only; they share what
            they have in common, plain networks first of all.
        out: the folder to write to, new, empty, or of a study of this configuration.
        data_root: where torchvision's data sets lie; not needed for the digits.
        download: let torchvision fetch what is not there.
        device: "cpu", "cuda", "cuda:1", "mps"; its results may differ in rounding.
        command: the command line that asks for the study, which the report prints; None: the shortest that would.

    Raises:
        ValueError, FileNotFoundError: a folder that holds something else, data that are not there, a device that is
            not available, a training that diverged, configurations that differ in anything else.
    """
    configs, folder, target = _listed(config), Path(out), as_device(device)
    common, trainings = _common(configs), {one.regularizer: one.strengths for one in configs}
    first = configs[0]  # all say the same of the samples and of training
    data = _samples(first, data_root, download)
    make, members = _factory(data), make_members(trainings, first.training_seeds)
    open_folder(folder, STUDY, {"trainings": {name: list(found) for name, found in trainings.items()}, **common})
    train_members(members, make, data.train, first, folder, device=target)
    about = {"dataset": first.dataset, "classes": list(data.classes)}
    runs = evaluate_members(members, make, data.held_out, folder, attacks=first.attacks, device=target, about=about)
    cohorts = make_cohorts(runs, list(trainings))
    judged = corrected([verdict for cohort in cohorts for verdict in verdicts(cohort)])
    result = StudyResult(join_records(runs), summarise_runs(runs), judged, basis(cohorts), folder / "report.html")
    write_table(folder / "records.parquet", result.records)
    write_text(folder / "summary.csv", result.summary.to_csv(index=False))
    if command is None:
        command = reproduce(configs, folder, data_root=data_root, download=download)
    write_study_report(result, configs, runs, cohorts, len(data.train), command)
    return result


def read_study(folder: str | Path, *, data_root: str | Path | None = None, download: bool = False) -> Study:
    """The study in ``folder``; its samples are read again.

    Raises:
        ValueError: it holds none, or one of another schema. As `run_study` for its samples.
    """
    said = dict(read_manifest(Path(folder), STUDY, option="study")["config"])
    trainings = {name: tuple(strengths) for name, strengths in said.pop("trainings").items()}
    name, strengths = next(iter(trainings.items()))
    config = StudyConfig(regularizer=name, strengths=strengths, **{**said, "attacks": tuple(said["attacks"])})
    data = _samples(config, data_root, download)
    return Study(config, data, _factory(data), make_members(trainings, config.training_seeds))


def _listed(config: StudyConfig | Sequence[StudyConfig]) -> list[StudyConfig]:
    return [config] if isinstance(config, StudyConfig) else list(config)


def _samples(config: StudyConfig, data_root: str | Path | None, download: bool) -> Data:
    return load_data(
        config.dataset,
        train_size=config.train_size,
        eval_size=config.eval_size,
        seed=config.seed,
        data_root=None if data_root is None else Path(data_root),
        download=download,
    )


def _factory(data: Data) -> Callable[[], nn.Module]:
    channels, height, width = data.train.images.shape[1:]
    return partial(small_network, (channels, height, width), len(data.classes))


def _common(configs: Sequence[StudyConfig]) -> dict[str, Any]:
    """What all configurations say beside regularizer and strengths.

    Raises:
        ValueError: they differ in it, or name a regularizer twice, or there is none.
    """
    if not configs:
        raise ValueError("config: got no configuration, expected at least one")
    first, *others = (
        {key: value for key, value in config.as_dict().items() if key not in ("regularizer", "strengths")}
        for config in configs
    )
    if any(other != first for other in others):
        raise ValueError("config: got some that differ in more than regularizer and strengths, expected nothing else")
    names = [config.regularizer for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"regularizers: got {' '.join(names)}, expected each once")
    return first
