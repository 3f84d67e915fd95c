"""The supplement of Zeng et al. (2021): robustness, alignment and faithfulness over ways of training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from captum_alignment.study.cohort import (
    Member,
    evaluate_members,
    load_network,
    make_members,
    read_study,
    train_members,
)
from captum_alignment.study.compare import USABLE, runs_in, summarise_runs
from captum_alignment.study.evaluation import Run
from captum_alignment.study.faithfulness._config import CHOICES
from captum_alignment.study.faithfulness._gradients import alignments, gradients_of
from captum_alignment.study.faithfulness._report import write_report
from captum_alignment.study.fit import SEED, STANDARD, TRAININGS, TrainingConfig, count_correct, network_factory
from captum_alignment.study.load import RANDOM, Split, split_hash
from captum_alignment.study.roar import areas, remove_and_retrain
from captum_alignment.study.store import open_folder, processes, state_hash, write_text

KIND = "supplement"
#: So many test images tell distances and alignment.
MEASURED = 500


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one training seed that were trained on ``train`` and measured on some of ``test``.

    Attributes:
        folder: has their weights. runs: what was measured.
    """

    members: Sequence[Member]
    make: Callable[[], nn.Module]
    train: Split
    test: Split
    folder: Path
    runs: Sequence[Run]


def run_faithfulness(
    train: Split,
    test: Split,
    *,
    out: str | Path,
    network: str,
    trainings: Sequence[str],
    fractions: Sequence[float],
    seeds: Sequence[int],
    absolute: bool,
    device: torch.device,
    training: Mapping[str, Any],
    about: Mapping[str, Any],
) -> pd.DataFrame:
    """Train networks in several ways, measure robustness and alignment, and run ROAR of the saliency of each.

    Everything is kept in ``out``, the networks and their evaluations as a study keeps them; the same call continues.
    Processes share the networks, then the cells.

    Returns:
        One row per network: accuracy, distance (median, with its interval), signed_ and absolute_alignment, _null and
        _rank (medians), area and beyond_random of ROAR (with intervals over seeds), usable (accurate enough to count).

    Raises:
        ValueError: as `remove_and_retrain`; an unknown training, or one that diverged.
    """
    folder, retraining, make = Path(out), TrainingConfig(**training), network_factory(network, train)
    members = make_members(strengths_of(trainings, train.images.shape[2:].numel()), (SEED,))
    config = {"network": network, **_config(members, train, test, absolute), **asdict(retraining), **about}
    with processes() as group:
        group.from_first(lambda: open_folder(folder, KIND, config))
        train_members(members, make, train, retraining, folder, device=device)
        first, said = test.take(slice(MEASURED)), {"dataset": about["data"]}
        runs = evaluate_members(members, make, first, folder, attacks="fast", device=device, about=said)
        networks = Networks(members, make, train, test, folder, runs)
        return _explain(networks, folder, config, retraining, fractions=fractions, seeds=seeds, device=device)


def explain_study(
    study: str | Path,
    *,
    out: str | Path,
    fractions: Sequence[float],
    seeds: Sequence[int],
    absolute: bool,
    device: torch.device,
    data_root: str | Path | None = None,
    download: bool = False,
) -> pd.DataFrame:
    """`run_faithfulness` of the networks and records of the finished ``study``, those of its first training seed.

    Networks are retrained as they were trained, on the study's training samples, and tested on its held-out ones.

    Raises:
        ValueError: as `remove_and_retrain`; no study, or one that is not finished or has no plain networks.
    """
    found, folder = read_study(study, data_root=data_root, download=download), Path(out)
    members = [member for member in found.members if member.seed == found.config.seed]
    if members[0].training != STANDARD:
        raise ValueError(f"study: {study} has no plain networks (strength 0), expected them beside the others")
    by_name = {run.name: run for run in runs_in(study)}
    retraining = TrainingConfig(**{one.name: getattr(found.config, one.name) for one in fields(TrainingConfig)})
    train, test = found.data.train, found.data.held_out
    about = {"data": found.config.dataset, "study": Path(study).resolve().name}
    config = {
        "network": "small",
        **_config(members, train, test, absolute),
        **asdict(retraining),
        **about,
    }
    with processes() as group:
        group.from_first(lambda: open_folder(folder, KIND, config))
        runs = [by_name[member.name] for member in members]
        networks = Networks(members, found.make, train, test, Path(study), runs)
        return _explain(networks, folder, config, retraining, fractions=fractions, seeds=seeds, device=device)


def strengths_of(trainings: Sequence[str], pixels: int) -> dict[str, tuple[float, ...]]:
    """Of each training its strengths, plain training first: all radii of adversarial ones, every other strength else.

    Raises:
        ValueError: an unknown training.
    """
    found: dict[str, tuple[float, ...]] = {STANDARD: (0.0,)}
    for name in trainings:
        if name not in CHOICES:
            raise ValueError(f"trainings: got {name!r}, expected some of {', '.join(CHOICES)}")
        if name != STANDARD:
            strengths = TRAININGS[name].small if pixels <= 64 else TRAININGS[name].large
            found[name] = strengths[1 :: 1 if name.startswith("pgd") else 2]
    return found


def _config(members: Sequence[Member], train: Split, test: Split, absolute: bool) -> dict[str, Any]:
    return {
        "trainings": [member.network for member in members],
        "train": len(train),
        "test": len(test),
        "train data": split_hash(train),
        "test data": split_hash(test),
        "absolute": absolute,
    }


def _explain(
    networks: Networks,
    folder: Path,
    config: Mapping[str, Any],
    retraining: TrainingConfig,
    *,
    fractions: Sequence[float],
    seeds: Sequence[int],
    device: torch.device,
) -> pd.DataFrame:
    """ROAR of the saliency of each network, the table of all, and the report, in ``folder``."""
    modules = {one.network: load_network(one, networks.make, networks.folder).to(device) for one in networks.members}
    methods = {name: gradients_of(module) for name, module in modules.items()}
    with processes() as group:
        cells = remove_and_retrain(
            modules[STANDARD],
            networks.make,
            networks.train,
            networks.test,
            out=folder / "roar",
            methods={**methods, RANDOM: RANDOM},
            fractions=fractions,
            seeds=seeds,
            absolute=config["absolute"],
            device=device,
            show_progress=True,
            about={"data": config["data"], **{name: state_hash(one.state_dict()) for name, one in modules.items()}},
            **asdict(retraining),
        )

        def finish() -> pd.DataFrame:
            areas_of = areas(cells).drop(columns="mode").rename(columns={"method": "network"})
            table = _measured(networks, modules, device).merge(areas_of, on="network")
            table = table.assign(usable=table["accuracy"] >= USABLE * table["accuracy"].max())
            write_text(folder / "networks.csv", table.to_csv(index=False))
            shown = first_images(networks.test)
            maps = {name: gradient(shown.to(device), shown).cpu() for name, gradient in methods.items()}
            write_report(folder / "report.html", table, shown, maps, config, len(seeds))
            return table

        return group.from_first(finish)


def _measured(networks: Networks, modules: Mapping[str, nn.Module], device: torch.device) -> pd.DataFrame:
    """What is known of each network without ROAR: its accuracy on all test images, its distances from its records."""
    summary = summarise_runs(networks.runs).set_index("run")
    rows, test = [], networks.test
    for member in networks.members:
        module = modules[member.network]
        row = {"network": member.network, "training": member.training, "strength": member.strength}
        row["accuracy"] = count_correct(module, test, device) / len(test)
        row |= {name: summary.loc[member.name, name] for name in ("distance", "distance_low", "distance_high")}
        rows.append(row | alignments(module, test.images[:MEASURED].to(device)))
    return pd.DataFrame(rows)


def first_images(test: Split, count: int = 6) -> torch.Tensor:
    """The first image of each of the first classes, not chosen by result."""
    classes = test.labels.unique()[:count]
    return torch.stack([test.images[int((test.labels == label).nonzero()[0])] for label in classes])
