"""Images brought to one size, as those were on which weights were evaluated."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from captum_alignment.study.load._given import as_dataset, fields, named_classes
from captum_alignment.study.load._sources import channels_first, plain_image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


class Size(int):
    """Pixels, and how images were brought to so many when weights were evaluated.

    It is the number wherever one is expected, so that ``load_dataset(resize=loaded.resize)`` knows the rest as well.

    Attributes:
        interpolation: between pixels, by torchvision's name.
        squash: both sides get this length, whatever the image's proportions; else the shorter one.
    """

    interpolation: str
    squash: bool

    def __new__(cls, pixels: int, interpolation: str = "bilinear", squash: bool = False) -> "Size":
        size = super().__new__(cls, pixels)
        size.interpolation, size.squash = interpolation, squash
        return size


class Fitted(Dataset[Any]):
    """``dataset`` with its images resized (shorter side, pixels) and cropped to the square in the middle.

    Raises:
        ValueError: sizes below 1, a crop larger than what resizing leaves; for one sample, an image too small to crop.
    """

    def __init__(
        self, dataset: Any, resize: int | None = None, crop: int | None = None, interpolation: str | None = None
    ) -> None:
        for name, value in (("resize", resize), ("crop", crop)):
            if value is not None and value < 1:
                raise ValueError(f"--{name}: got {value}, expected at least 1 pixel")
        if resize is not None and crop is not None and crop > resize:
            raise ValueError(f"--crop: got {crop}, expected at most {resize}, the shorter side after --resize")
        if interpolation is not None and interpolation not in INTERPOLATIONS:
            raise ValueError(f"--interpolation: got {interpolation!r}, expected {', '.join(INTERPOLATIONS)}")
        self.dataset, self.crop = as_dataset(dataset), crop
        self.resize = None if resize is None else _size(resize, interpolation)
        self.ids, self.classes = getattr(self.dataset, "ids", None), named_classes(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        image, label = fields(self.dataset[index])
        fitted = _fit(image, self.resize, self.crop)
        return fitted if label is None else (fitted, label)

    def original_shape(self, index: int) -> tuple[int, int]:
        """(H, W) of an image before it is resized and cropped."""
        from torchvision.transforms.v2 import functional as transforms  # noqa: PLC0415 - needed for this only

        height, width = transforms.get_size(_as_picture(fields(self.dataset[index])[0]))
        return height, width

    def fit_mask(self, mask: Tensor) -> Tensor:
        """A mask (H, W) resized and cropped as the images, to the nearest pixel."""
        resize = None if self.resize is None else Size(self.resize, "nearest", self.resize.squash)
        return _fit(mask, resize, self.crop)[0]


def _size(resize: int, interpolation: str | None) -> Size:
    size = resize if isinstance(resize, Size) else Size(resize)
    return size if interpolation is None else Size(size, interpolation, size.squash)


def _fit(image: Any, resize: Size | None, crop: int | None) -> Any:
    from torchvision.transforms.v2 import InterpolationMode  # noqa: PLC0415 - needed for this only
    from torchvision.transforms.v2 import functional as transforms  # noqa: PLC0415

    image = _as_picture(image)
    if resize is not None:
        sides = [int(resize)] * (2 if resize.squash else 1)
        image = transforms.resize(image, sides, InterpolationMode(resize.interpolation))
    if crop is not None:
        height, width = transforms.get_size(image)
        if min(height, width) < crop:
            raise ValueError(f"--crop: got {crop}, but the image has {height} x {width} pixels; --resize enlarges it")
        image = transforms.center_crop(image, [crop])
    return image


def _as_picture(image: Any) -> Any:
    """A PIL image, or a tensor (C, H, W)."""
    if isinstance(image, Image.Image):
        image = plain_image(image)
    elif isinstance(image, np.ndarray):
        image = torch.from_numpy(channels_first(image[None], "the image")[0])
    return image[None] if isinstance(image, Tensor) and image.ndim == 2 else image
