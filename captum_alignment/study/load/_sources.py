"""Map-style data sets of images in memory and in files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

_CHANNELS = (1, 3)
_MAX_16_BITS = 65535
#: PIL's modes of 8 bits or fewer, and as what their values are colours; of palettes they are numbers.
_COLOURS = {
    **{mode: mode for mode in ("L", "RGB", "RGBA")},
    **dict.fromkeys(("1", "LA", "La"), "L"),
    **dict.fromkeys(("P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa"), "RGB"),
}


class Arrays(Dataset[Any]):
    """Images (N, C, H, W), uint8 or floating, with labels (N,) or None: ``[i]`` is (image, label) or the image."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None,
        *,
        ids: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.classes = None if classes is None else tuple(classes)
        self.ids = [str(i) for i in range(len(images))] if ids is None else list(ids)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index] if self.labels is None else (self.images[index], int(self.labels[index]))


class Files(Dataset[Any]):
    """Image files ``folder / ids[i]``, opened one by one by `open_image`: ``[i]`` is (image, label) or the image."""

    def __init__(
        self, folder: Path, ids: Sequence[str], labels: Sequence[int] | None, *, classes: Sequence[str] | None = None
    ) -> None:
        self.folder, self.ids, self.labels = folder, list(ids), labels
        self.classes = None if classes is None else tuple(classes)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        image = open_image(self.folder / self.ids[index])
        return image if self.labels is None else (image, self.labels[index])


def open_image(path: Path) -> Any:
    """An image file as an RGB PIL image; with 16 bits or floating values as float32 (3, H, W), in [0, 1].

    The orientation that EXIF has is left alone, as in torchvision.

    Raises:
        ValueError: an image of 32-bit integers.
    """
    with path.open("rb") as file, Image.open(file) as image:
        plain = plain_image(image)
        return plain.expand(3, -1, -1) if isinstance(plain, Tensor) else plain.convert("RGB")


def plain_image(image: Image.Image) -> Image.Image | Tensor:
    """A PIL image whose values are colours: L, RGB or RGBA; with 16 bits or floating values float32 (H, W) in [0, 1].

    16 bits are divided by 65535. Floating values stay as they are: the file does not say their range, and `Samples`
    refuses what is outside [0, 1].

    Raises:
        ValueError: an image of 32-bit integers.
    """
    if image.mode in _COLOURS:
        return image.convert(_COLOURS[image.mode])
    values = np.asarray(image)
    if image.mode != "F":
        # Pillow may read the 16 bits of PNG and PGM into 32.
        if image.mode == "I" and image.format not in ("PNG", "PPM"):
            raise ValueError("integers of 32 bits, expected 8 or 16 bits")
        values = values / _MAX_16_BITS
    return torch.from_numpy(values.astype(np.float32))


def channels_first(images: np.ndarray, what: str) -> np.ndarray:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W), where C is 1 or 3."""
    if images.ndim == 3:
        return images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] in _CHANNELS for axis in (1, 3))
    if first == last:
        raise ValueError(
            f"--data: {what}: shape {images.shape}, expected (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3"
            + (", one of them only" if first else "")
        )
    return images if first else images.transpose(0, 3, 1, 2)
