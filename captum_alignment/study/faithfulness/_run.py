"""The supplement of Zeng et al. (2021) as a study: robustness, alignment and faithfulness over ways of training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from captum_alignment.study.compare import USABLE
from captum_alignment.study.faithfulness._networks import (
    Trained,
    gradients_of,
    measure_network,
    networks_of,
    read_measures,
    train_network,
)
from captum_alignment.study.faithfulness._report import write_report
from captum_alignment.study.fit import Retraining, network_factory
from captum_alignment.study.load import Split, split_hash
from captum_alignment.study.roar import RANDOM, areas, remove_and_retrain
from captum_alignment.study.store import open_folder, processes, state_hash, write_text

KIND = "supplement"


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

    Everything is kept in ``out``; the same call continues. Processes share the networks, then the cells.

    Returns:
        One row per network: accuracy, distance (median, with its interval), signed_ and absolute_alignment, _null and
        _rank (medians), area and beyond_random of ROAR (with intervals over seeds), usable (accurate enough to count).

    Raises:
        ValueError: as `remove_and_retrain`; an unknown training, or one that diverged.
    """
    folder, retraining = Path(out), Retraining(**training)
    make = network_factory(network, train)
    chosen = networks_of(trainings, train.images.shape[2:].numel())
    config = {
        "network": network,
        "trainings": [one.name for one in chosen],
        "train": len(train),
        "test": len(test),
        "train data": split_hash(train),
        "test data": split_hash(test),
        "absolute": absolute,
        **asdict(retraining),
        **about,
    }
    with processes() as group:
        group.from_first(lambda: open_folder(folder, KIND, config))
        for one in group.share(chosen):
            module = train_network(one, make, train, retraining, folder, device)
            measure_network(one, module, test, folder, device)
        group.wait()
        modules = {one: train_network(one, make, train, retraining, folder, device) for one in chosen}
        methods = {one.name: gradients_of(module, device) for one, module in modules.items()}
        cells = remove_and_retrain(
            modules[chosen[0]].to(device),
            make,
            train,
            test,
            out=folder / "roar",
            methods={**methods, RANDOM: RANDOM},
            fractions=fractions,
            seeds=seeds,
            absolute=absolute,
            device=device,
            show_progress=True,
            about={**about, **{one.name: state_hash(module.state_dict()) for one, module in modules.items()}},
            **training,
        )
        table = summary(chosen, folder, cells)
        if group.rank == 0:
            write_text(folder / "networks.csv", table.to_csv(index=False))
            shown = first_images(test)
            images = shown.to(device).clone().requires_grad_()
            maps = {name: gradient(images, shown).cpu() for name, gradient in methods.items()}
            write_report(folder / "report.html", table, shown, maps, config, len(seeds))
        group.wait()
    return table


def summary(chosen: Sequence[Trained], folder: Path, cells: pd.DataFrame) -> pd.DataFrame:
    measured = pd.DataFrame([read_measures(one, folder) for one in chosen])
    table = measured.merge(areas(cells).drop(columns="mode"), left_on="network", right_on="method").drop(
        columns="method"
    )
    return table.assign(usable=table["accuracy"] >= USABLE * table["accuracy"].max())


def first_images(test: Split, count: int = 6) -> torch.Tensor:
    """The first image of each of the first classes, not chosen by result."""
    classes = test.labels.unique()[:count]
    return torch.stack([test.images[int((test.labels == label).nonzero()[0])] for label in classes])
