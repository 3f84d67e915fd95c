"""The maps of a ROAR study in files, made once."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from captum_alignment.study.load import MapFunction, Split
from captum_alignment.training import SaliencyTargets, saliency_targets

_BATCH = 64


def keep_maps(model: Any, name: str, method: MapFunction, split: Split, folder: Path, *, per: str, bar: Any) -> None:
    """The maps of every image of ``split`` in ``folder``, as far as they are not there; see `saliency_targets`.

    ``bar`` moves on by the images of ``split``.

    Raises:
        ValueError: maps that are not shaped like the images, or not finite.
    """

    def maps(images: Tensor, _labels: Tensor) -> Tensor:
        # The label would tell the network that is retrained what the answer is, by the place of what is removed.
        with torch.no_grad():
            targets = model(images.clone()).argmax(1)
        found = method(images, targets)
        bar.update(len(images))
        one_channel = (len(images), 1, *images.shape[2:])
        return found.expand_as(images) if per == "pixel" and found.shape == one_channel else found

    maps.__qualname__ = name
    before = bar.n
    try:
        saliency_targets(model, _pairs(split), folder, method=maps, threshold=None, batch_size=_BATCH)
    except ValueError as error:
        raise ValueError(f"methods: {name}: {error}") from error
    bar.update(before + len(split) - bar.n)  # those that were there


def read_maps(split: Split, folder: Path, start: int, stop: int) -> Tensor:
    """The maps that `keep_maps` has put there, of the images from ``start`` to before ``stop``."""
    stored = SaliencyTargets(_pairs(split), folder, threshold=None)
    return torch.stack([stored[index][2] for index in range(start, min(stop, len(split)))])


def _pairs(split: Split) -> TensorDataset:
    return TensorDataset(split.images, split.labels)
