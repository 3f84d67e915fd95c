"""Samples of any data set as images in [0, 1], each with its identity; one that cannot be read says why."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from captum_alignment.study.load._factories import reason
from captum_alignment.study.load._given import as_dataset, fields, named_classes
from captum_alignment.study.load._sources import plain_image

_RGB = 3


class Dataset(Protocol):
    """What `evaluate` takes: ``dataset[i]`` is an image, (image, label), or a row with ``image`` and ``label``.

    An image is a PIL image, a uint8 array or tensor, or a floating one inside the bounds; arrays may have their
    channels first or last. A floating row (D,) of a table stays one. ``classes`` (names) and ``ids`` (one per sample)
    are used where the data set has them; `as_dataset` makes one of pairs of arrays and of loaders.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Sample:
    """One sample: its index in the data set, its identity, its image (C, H, W) and label; or the reason it has none."""

    index: int
    id: str
    image: Tensor | None
    label: int | None
    error: str | None = None


class Samples:
    """The samples of a data set, read one by one.

    Args:
        dataset: as `Dataset` says.
        bounds: (min, max) that every value must keep.
        shape: (C, H, W) that every image must have; None: any.

    Raises:
        TypeError, ValueError: as `as_dataset`.
    """

    def __init__(
        self, dataset: Any, bounds: tuple[float, float] = (0, 1), shape: tuple[int, ...] | None = None
    ) -> None:
        self.dataset, self.bounds, self.shape = as_dataset(dataset), bounds, shape
        self.ids: Sequence[Any] | None = getattr(self.dataset, "ids", None)
        self.classes = named_classes(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        name = str(index if self.ids is None else self.ids[index])
        try:
            image, label = fields(self.dataset[index])
            label = None if label is None else as_label(label)
            tensor = self._tensor(image)
            self._check(tensor)
        except (Exception, SystemExit) as error:  # a data set is foreign code, and one bad file must not end the run
            return Sample(index, name, None, None, reason(error))
        return Sample(index, name, tensor, label)

    def _tensor(self, image: Any) -> Tensor:
        if getattr(self.dataset, "as_is", False):
            return image
        tensor = as_image(image)
        if self.shape is not None and self.shape[0] == _RGB and isinstance(image, Image.Image):
            # Grey ones and those with transparency, among images in colour.
            tensor = tensor[:_RGB].expand(_RGB, -1, -1)
        return tensor

    def _check(self, image: Tensor) -> None:
        if self.shape is not None and tuple(image.shape) != self.shape:
            raise ValueError(f"shape {tuple(image.shape)}, expected {self.shape} as the first image")
        if not image.isfinite().all():
            raise ValueError("NaN or infinite values")
        low, high = float(image.min()), float(image.max())
        if low < self.bounds[0] or high > self.bounds[1]:
            raise ValueError(
                f"values from {low:.4g} to {high:.4g}, expected {self.bounds[0]:g} to {self.bounds[1]:g} "
                "(put the normalisation into the model)"
            )

    def batches(self, lists: Iterable[Sequence[int]], *, workers: int = 0) -> Iterator[list[Sample]]:
        """The samples of each list of indices; so many worker processes read one list each ahead."""
        yield from DataLoader(
            self,  # pyright: ignore[reportArgumentType] - a map-style data set by its methods
            batch_sampler=lists,  # pyright: ignore[reportArgumentType] - asked for a list when one is to be read
            num_workers=workers,
            prefetch_factor=1 if workers else None,
            collate_fn=list,
            generator=torch.Generator(),  # its own, because it draws a seed for its workers, also where there are none
        )


def as_label(label: Any) -> int:
    """One class index, also where it comes as the 0. or 1. of a binary loss, as a number of NumPy's or as a tensor.

    Raises:
        TypeError, ValueError: several labels (multi-hot), probabilities, something that is no number.
    """
    values = np.asarray(label.detach().cpu() if isinstance(label, Tensor) else label)
    if values.dtype.kind not in "uif":
        raise TypeError(f"the label is {type(label).__name__}, expected a class index")
    if values.size != 1:
        raise ValueError(f"the label has shape {values.shape}, expected one class index (no multi-hot or soft labels)")
    value = values.reshape(()).item()
    if value != int(value):
        raise ValueError(f"the label is {value}, expected a class index")
    return int(value)


def as_image(image: Any) -> Tensor:
    """A PIL image, array or tensor as a floating tensor (C, H, W); uint8 becomes float32 in [0, 1].

    A floating row (D,) stays as it is.

    Raises:
        TypeError, ValueError: something else, integers other than uint8, not 1 to 3 dimensions.
    """
    last = isinstance(image, Image.Image)  # the channels of arrays may be first or last, PIL's are last
    if isinstance(image, Image.Image):
        image = plain_image(image)
    if not isinstance(image, Tensor):
        array = np.asarray(image)
        if array.dtype.kind not in "uif":
            raise TypeError(f"the image is {type(image).__name__}, expected a PIL image, an array or a tensor")
        image = torch.from_numpy(array.copy())
        if image.ndim == 3 and (last or (image.shape[-1] in (1, 3, 4) and image.shape[0] not in (1, 3))):
            image = image.permute(2, 0, 1)
    if image.is_nested or image.layout != torch.strided:
        raise TypeError("the image is a nested or sparse tensor, expected a dense one")
    if image.ndim == 1 and not image.is_floating_point():
        raise TypeError(f"the row has dtype {image.dtype}, expected a floating one")
    if image.ndim == 2:
        image = image.unsqueeze(0)
    if image.ndim not in (1, 3):
        raise ValueError(f"the image has shape {tuple(image.shape)}, expected (C, H, W), (H, W, C) or (H, W)")
    if image.is_floating_point():
        return image
    if image.dtype != torch.uint8:
        raise TypeError(f"the image has dtype {image.dtype}, expected uint8 or a floating one")
    return image.float() / 255
