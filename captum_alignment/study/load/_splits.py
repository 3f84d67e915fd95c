"""Images in memory: training samples and held-out samples, in [0, 1]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_alignment.study.load._factories import reason
from captum_alignment.study.load._forms import TORCHVISION
from captum_alignment.study.load._given import named_classes
from captum_alignment.study.load._samples import Samples
from captum_alignment.study.store import state_hash

_DIGITS_HELD_OUT = 500


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) float32 in [0, 1], labels (N,), and each sample's index in its source (N,)."""

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.images[position], int(self.labels[position])

    def take(self, positions: Tensor | slice) -> "Split":
        """Some of the samples."""
        return Split(self.images[positions], self.labels[positions], self.index[positions])

    @property
    def ids(self) -> list[str]:
        """Which samples of the source these are."""
        return [str(index) for index in self.index.tolist()]


@dataclass(frozen=True)
class Data:
    """What the models are trained on, what they are evaluated on, and the names of the classes."""

    train: Split
    held_out: Split
    classes: tuple[str, ...]


def load_data(
    name: str,
    *,
    train_size: int | None = None,
    eval_size: int | None = None,
    seed: int = 0,
    data_root: Path | None = None,
    download: bool = False,
) -> Data:
    """Samples of the data set ``name``, digits or a key of `TORCHVISION`, drawn without replacement by ``seed``.

    Args:
        train_size, eval_size: how many are drawn; None is all of them.
        data_root, download: as of `open_torchvision`.

    Raises:
        ValueError: no ``data_root`` where one is needed, or more samples asked for than there are.
        FileNotFoundError: the data are not below ``data_root``; the message says what was expected where.
    """
    if name == "digits":
        train, test, classes = digits()
    else:
        train, test, classes = _torchvision(name, data_root, download)
    generator = torch.Generator().manual_seed(seed)
    return Data(
        _draw(train, train_size, "train_size", generator),
        _draw(test, eval_size, "eval_size", generator),
        classes,
    )


def digits() -> tuple[Split, Split, tuple[str, ...]]:
    """scikit-learn's digits: training samples, held-out samples, and the names of the classes."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - needed for this data set only

    source: Any = load_digits()
    images = torch.from_numpy(source.images / 16).float().unsqueeze(1)
    labels = torch.from_numpy(source.target).long()
    # The source has no split of its own; this one never changes, whatever the seed.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = (
        Split(images[part], labels[part], part) for part in (order[_DIGITS_HELD_OUT:], order[:_DIGITS_HELD_OUT])
    )
    return train, test, tuple(str(name) for name in source.target_names)


def _torchvision(name: str, root: Path | None, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    train, test = (open_torchvision(name, root, train=train, download=download) for train in (True, False))
    return _split(train), _split(test), class_names(train)


def open_torchvision(name: str, root: Path | None, *, train: bool, download: bool) -> Any:
    """torchvision's data set ``name``, a key of `TORCHVISION`, which lies under ``root``.

    Raises:
        ValueError: no ``root``, or damaged files.
        FileNotFoundError: the data are not there; the message says what was expected where.
        ConnectionError: they could not be downloaded.
    """
    from torchvision import datasets  # noqa: PLC0415 - needed for these data sets only

    kind, below = TORCHVISION[name]
    free = name != "imagenet"  # nobody may offer ImageNet for download, and torchvision names its splits
    hint = "--download fetches it there" if free else "imagefolder:PATH reads class folders without it"
    if root is None:
        raise ValueError(f"--data-root: missing, expected the directory that holds {below} ({hint})")
    options = {"train": train, "download": download} if free else {"split": "train" if train else "val"}
    try:
        return getattr(datasets, kind)(root, **options)
    except (RuntimeError, OSError) as error:
        if free and download:
            raise ConnectionError(f"--download: {kind} did not arrive at {root} ({reason(error)})") from error
        raise FileNotFoundError(
            f"--data-root: no {kind} under {root}, expected {root / below} as torchvision lays it out ({hint})"
        ) from error
    except Exception as error:
        raise ValueError(f"--data-root: {kind} under {root} is damaged ({reason(error)})") from error


def class_names(dataset: Any) -> tuple[str, ...]:
    """Short names of the classes of one of torchvision's data sets."""
    # MNIST's are "0 - zero".
    return tuple(name.partition(" - ")[0] for name in named_classes(dataset) or ())


def _split(dataset: Any) -> Split:
    images = torch.from_numpy(np.asarray(dataset.data)).float() / 255
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.as_tensor(dataset.targets).long(), torch.arange(len(images)))


def _draw(split: Split, size: int | None, name: str, generator: torch.Generator) -> Split:
    n = len(split.labels)
    if size is not None and size > n:
        raise ValueError(f"{name}: got {size}, expected at most {n}, the samples there are")
    return split.take(torch.randperm(n, generator=generator)[:size])


def as_split(dataset: Any, name: str, bounds: tuple[float, float]) -> Split:
    """All images and labels of ``dataset`` in memory; ``name`` is what messages call it.

    Raises:
        ValueError: no samples, one that cannot be read or has no label, images of different shapes.
    """
    if isinstance(dataset, Split):
        return dataset
    samples = Samples(dataset, bounds)
    images, labels = [], []
    for index in range(len(samples)):
        sample = samples[index]
        if sample.image is None or sample.label is None:
            reason = sample.error or "it has no label"
            raise ValueError(f"{name}: sample {sample.index} ({sample.id}) cannot be used: {reason}")
        samples.shape = tuple(sample.image.shape)
        images.append(sample.image.float())
        labels.append(sample.label)
    if not images:
        raise ValueError(f"{name}: got no samples, expected at least one")
    return Split(torch.stack(images), torch.tensor(labels), torch.arange(len(images)))


def drawn(split: Split, size: int | None, name: str) -> Split:
    """``size`` samples of ``split``, always the same ones; None is all of them."""
    if size is None:
        return split
    if not 1 <= size <= len(split):
        raise ValueError(f"{name}: got {size}, expected 1 to {len(split)}, the samples there are")
    return split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:size])


def split_hash(split: Split) -> str:
    """What tells the images and labels of ``split`` from others."""
    return state_hash({"images": split.images, "labels": split.labels})
