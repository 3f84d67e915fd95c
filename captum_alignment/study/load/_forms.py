"""What can be said for a data set: every kind by its word, and what opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_alignment._optional import WhenUsed

# The command line lists the forms before anything that is slow is needed.
if TYPE_CHECKING:
    from captum_alignment.study.load import _datasets, _npz
else:
    _datasets = WhenUsed("captum_alignment.study.load._datasets")
    _npz = WhenUsed("captum_alignment.study.load._npz")

#: torchvision's class and what lies under the root.
TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "imagenet": ("ImageNet", "ILSVRC2012_devkit_t12.tar.gz"),
}


@dataclass(frozen=True)
class Source:
    """A kind of data set: what opens it, from what follows the colon, and whether it has training and test samples.

    Attributes:
        open: of (argument, root, split, download).
    """

    open: Callable[[str, Path | None, str, bool], Any]
    argument: str = ""
    has_splits: bool = False


#: Every kind of data set by the word before its colon; what is none of them is a user's own.
SOURCES: dict[str, Source] = {
    "digits": Source(lambda _, _root, split, _download: _datasets.from_digits(split), has_splits=True),
    **{
        name: Source(lambda _, *given, name=name: _datasets.from_torchvision(name, *given), has_splits=True)
        for name in TORCHVISION
    },
    "imagefolder": Source(lambda folder, *_: _datasets.from_folder(folder), "PATH"),
    "npz": Source(lambda file, *_: _npz.open_npz(file), "FILE"),
    "hf": Source(
        lambda name, _root, split, download: _datasets.from_hugging_face(name, split, download),
        "NAME",
        has_splits=True,
    ),
}
#: What can be said for a data set.
FORMS = (
    *(f"{name}:{source.argument}" if source.argument else name for name, source in SOURCES.items()),
    "path/file.py:factory",
    "package.module:factory",
)
