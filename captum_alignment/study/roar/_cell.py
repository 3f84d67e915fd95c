"""One cell of a ROAR study: images without their most important features, and the network that is trained on them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from captum_alignment.metrics import remove_features
from captum_alignment.study.fit import TrainingConfig, count_correct, fit_fresh
from captum_alignment.study.load import Split
from captum_alignment.study.roar._grid import UNMODIFIED, Cell
from captum_alignment.study.roar._maps import read_maps

#: Images whose maps are in memory at once.
_CHUNK = 512


@dataclass(frozen=True)
class Removal:
    """What is removed: ``baseline`` (C,) replaces it; ``per`` and ``absolute`` as of `remove_features`."""

    baseline: Tensor
    per: Any
    absolute: bool

    def __call__(self, images: Tensor, maps: Tensor, cell: Cell, generator: torch.Generator) -> Tensor:
        """``images`` as ``cell`` wants them; ``generator`` breaks ties."""
        keep = cell.mode == "kar"
        options = {"baselines": self.baseline, "keep": keep, "per": self.per, "absolute": self.absolute}
        return remove_features(images, maps, cell.fraction, generator=generator, **options)


@dataclass(frozen=True, eq=False)
class Modified:
    """``split`` without features, and the number of its images whose map is constant, or whose cut lies among equals:
    there chance decides what goes, altogether or in part.
    """

    split: Split
    constant: int = 0
    tied: int = 0


def modify(split: Split, folder: Path, cell: Cell, removal: Removal) -> Modified:
    """``split`` as ``cell`` wants it, by the maps in ``folder``; ties are broken by the cell's seed."""
    if cell.mode == UNMODIFIED:
        return Modified(split)
    generator = torch.Generator().manual_seed(cell.seed)
    images, constant, tied = torch.empty_like(split.images), 0, 0
    for start in range(0, len(split), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        maps = read_maps(split, folder, start, start + _CHUNK)
        images[chunk] = removal(split.images[chunk], maps, cell, generator)
        flat, among_equals = _ties(maps, cell.fraction, removal)
        constant, tied = constant + flat, tied + among_equals
    return Modified(Split(images, split.labels, split.index), constant, tied)


def _ties(maps: Tensor, fraction: float, removal: Removal) -> tuple[int, int]:
    """The number of constant maps, and of those whose last removed feature is as important as the first that stays."""
    importance = maps.abs() if removal.absolute else maps
    importance = (
        (importance.sum(1) if removal.per == "pixel" else importance).flatten(1).sort(1, descending=True).values
    )
    count = round(fraction * importance.shape[1])
    constant = importance[:, 0] == importance[:, -1]
    tied = importance[:, count - 1] == importance[:, count]
    return int(constant.sum()), int(tied.sum())


def run_cell(
    cell: Cell,
    make_model: Callable[[], nn.Module],
    train: Modified,
    test: Modified,
    retraining: TrainingConfig,
    *,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """What the record of ``cell`` says beside its place in the grid.

    Raises:
        ValueError: the training diverged.
    """
    began = time.monotonic()
    options = {"seed": cell.seed, "device": device, "name": cell.name, "callbacks": callbacks}
    network = fit_fresh(make_model, train.split, retraining, **options)
    correct = count_correct(network.to(device), test.split, device)
    return {
        "accuracy": correct / len(test.split),
        "correct": correct,
        "tested": len(test.split),
        "constant_train": train.constant,
        "constant_test": test.constant,
        "tied_train": train.tied,
        "tied_test": test.tied,
        "seconds": round(time.monotonic() - began, 1),
    }
