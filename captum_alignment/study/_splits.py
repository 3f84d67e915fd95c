"""The images of a study: training samples and held-out samples, in [0, 1]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_alignment.study._config import StudyConfig
from captum_alignment.study._factories import reason

#: torchvision's class and what lies under the root.
TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "imagenet": ("ImageNet", "ILSVRC2012_devkit_t12.tar.gz"),
}
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


def load_data(config: StudyConfig, *, data_root: Path | None = None, download: bool = False) -> Data:
    """The samples of ``config``, drawn without replacement by its seed; held-out samples are the same for all models.

    Raises:
        ValueError: no ``data_root`` where one is needed, or more samples asked for than there are.
        FileNotFoundError: the data are not below ``data_root``; the message says what was expected where.
    """
    if config.dataset == "digits":
        train, test, classes = digits()
    else:
        train, test, classes = _torchvision(config.dataset, data_root, download)
    generator = torch.Generator().manual_seed(config.seed)
    return Data(
        _draw(train, config.train_size, "train_size", generator),
        _draw(test, config.eval_size, "eval_size", generator),
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
    # ImageNet's are tuples of synonyms, MNIST's are "0 - zero".
    names = (name if isinstance(name, str) else name[0] for name in dataset.classes)
    return tuple(name.partition(" - ")[0] for name in names)


def _split(dataset: Any) -> Split:
    images = torch.from_numpy(np.asarray(dataset.data)).float() / 255
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.as_tensor(dataset.targets).long(), torch.arange(len(images)))


def _draw(split: Split, size: int | None, name: str, generator: torch.Generator) -> Split:
    n = len(split.labels)
    if size is not None and size > n:
        raise ValueError(f"{name}: got {size}, expected at most {n}, the samples there are")
    chosen = torch.randperm(n, generator=generator)[:size]
    return Split(split.images[chosen], split.labels[chosen], split.index[chosen])
