"""What the options of ``captum-alignment roar`` name: the images, the network that is explained, and fresh ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from captum_alignment.study.cli._options import fitting, some
from captum_alignment.study.fit import SEED, TrainingConfig, fit_fresh, kept, network_factory
from captum_alignment.study.load import Split, as_split, drawn, load_dataset, load_model, short_name
from captum_alignment.study.roar import MODEL
from captum_alignment.study.store import Processes


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that is explained, what makes fresh ones, what both are called, and the geometry of its images."""

    model: nn.Module
    make: Callable[[], nn.Module]
    name: str
    retrained: str
    resize: int | None = None
    crop: int | None = None


def load_subject(given: Mapping[str, Any], device: torch.device) -> Subject:
    """The network of ``--model``; fresh ones are made from ``--retrain``, else from the same without its weights.

    Raises:
        ValueError, TypeError, FileNotFoundError: as `load_model`.
    """
    options, spec = some(given, "num_classes"), given.get("retrain", given["model"])
    loaded = load_model(given["model"], device=device, **some(given, "weights", "mean", "std"), **options)

    def make() -> nn.Module:
        return load_model(spec, mean=loaded.mean, std=loaded.std, seed=None, **options).module

    return Subject(loaded.module, make, loaded.name, short_name(spec), loaded.resize, loaded.crop)


def load_splits(given: Mapping[str, Any], subject: Subject | None) -> tuple[Split, Split, dict[str, Any]]:
    """The training and the test images, and what was done to them; the model knows their size where nobody says it.

    Raises:
        ValueError, FileNotFoundError: as `load_dataset`; images that cannot be read; sizes out of range.
    """
    geometry = fitting(given, subject)
    options = {"root": given.get("data_root"), "download": given.get("download", False), **geometry}
    own = "train_data" in given
    sources = {
        "train": load_dataset(given["train_data" if own else "data"], split="test" if own else "train", **options),
        "test": load_dataset(given["data"], **options),
    }
    train, test = (
        drawn(as_split(source, name, (0, 1)), given.get(f"{name}_size"), f"--{name}-size")
        for name, source in sources.items()
    )
    return train, test, geometry | ({"train data from": given["train_data"]} if own else {})


def train_subject(
    given: Mapping[str, Any], train: Split, retraining: TrainingConfig, *, device: torch.device, group: Processes
) -> Subject:
    """The network of ``--network``, trained on ``train``; an earlier run of the folder has left its weights there.

    Raises:
        ValueError: a training that diverged.
    """
    make = network_factory(given["network"], train)
    path, name = given["out"] / MODEL, "the network that is to be explained"

    def explained() -> nn.Module:
        # The study writes it, once it has opened the folder.
        if path.is_file():
            return kept(path, make)
        return fit_fresh(make, train, retraining, seed=SEED, device=device, name=name)

    # By value, because the first process alone may have trained it.
    state = group.from_first(lambda: explained().state_dict())
    model = make()
    model.load_state_dict(state)
    return Subject(model.eval().to(device), make, f"{given['network']}, trained as the others", given["network"])
