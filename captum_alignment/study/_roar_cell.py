"""One cell of a ROAR study: images without their most important features, and the network that is trained on them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override  # comes with torch

from captum_alignment.metrics import remove_features
from captum_alignment.study._fit import Diverged, Recipe, fit
from captum_alignment.study._roar_grid import UNMODIFIED, Cell
from captum_alignment.study._roar_maps import read_maps
from captum_alignment.study._splits import Split

#: Images whose maps are in memory at once, and which a network is tested on at once.
_CHUNK = 512
_SHIFT = 4


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How the network of every cell is trained.

    Attributes:
        optimizer: "adam" or "sgd" (momentum .9). learning_rate decays along a cosine to 0, or by 10 every
            ``decay_every`` epochs where that is given.
        augment: flip images at random and shift them by up to 4 pixels, after features are removed.
    """

    epochs: int = 15
    batch_size: int = 50
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    decay_every: int | None = None
    weight_decay: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "decay_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer: got {self.optimizer!r}, expected 'adam' or 'sgd'")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: got {self.learning_rate}, expected a number > 0")


class Augmentation(Callback):
    """Before each training step flips every image at random, and shifts it by up to 4 pixels over black ground."""

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        batch[0] = augmented(batch[0])


def augmented(images: Tensor) -> Tensor:
    """``images`` (N, C, H, W), each flipped or not and shifted by up to 4 pixels, by the global generator."""
    n, _, height, width = images.shape
    shift = torch.randint(2 * _SHIFT + 1, (2, n, 1)).to(images.device)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = shift[1] + torch.arange(width, device=images.device)
    columns = torch.where((torch.rand(n, 1) < 0.5).to(images.device), columns.flip(1), columns)
    padded = nn.functional.pad(images, (_SHIFT,) * 4)
    samples = torch.arange(n, device=images.device).view(-1, 1, 1)
    return padded[samples, :, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class Removal:
    """What is removed: ``baseline`` (C,) replaces it; ``per`` and ``absolute`` as of `remove_features`."""

    baseline: Tensor
    per: Any
    absolute: bool

    def __call__(self, images: Tensor, maps: Tensor, cell: Cell, generator: torch.Generator) -> Tensor:
        """``images`` as ``cell`` wants them; ``generator`` breaks ties."""
        keep = cell.mode == "kar"
        options = {"baseline": self.baseline, "keep": keep, "per": self.per, "absolute": self.absolute}
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


def fit_fresh(
    make_model: Callable[[], nn.Module],
    split: Split,
    retraining: Retraining,
    *,
    seed: int,
    device: torch.device,
    name: str,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """A network of ``make_model`` trained on ``split``, in evaluation mode on the CPU; ``name`` is for messages.

    Raises:
        ValueError: the training diverged.
    """
    recipe = Recipe([Augmentation()] if retraining.augment else [])

    def network() -> nn.Module:
        return make_model().train()  # what loads a model may have it in evaluation mode

    try:
        return fit(network, recipe, split, retraining, seed=seed, device=device, callbacks=callbacks)
    except Diverged as error:
        raise ValueError(f"{name}: the training diverged; use a smaller learning rate") from error


def run_cell(
    cell: Cell,
    make_model: Callable[[], nn.Module],
    train: Modified,
    test: Modified,
    retraining: Retraining,
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


@torch.no_grad()
def count_correct(network: nn.Module, split: Split, device: torch.device) -> int:
    batches = zip(split.images.split(_CHUNK), split.labels.split(_CHUNK), strict=True)
    return sum(int((network(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in batches)
