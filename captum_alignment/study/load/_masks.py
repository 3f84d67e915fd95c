"""Where the object of every image is, as somebody has annotated it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_alignment.study.load._factories import reason
from captum_alignment.study.load._fitted import Fitted

#: Of files whose values are exact; JPEG's are not.
_ENDINGS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".npy")


class Masks:
    """``masks[index]`` is True inside, (H, W), as the model sees the image; None where there is no mask.

    Args:
        given: a folder with a file for every sample, called as its id but for the ending; or ``masks[i]`` with the
            length of the data set, each an array (H, W) or (1, H, W), or None. What is not 0 is inside.
        dataset: whose samples these are. What `Fitted` resizes and crops has masks of the size of the original image.
        shape: (H, W) that the model sees.

    Raises:
        ValueError: another length, no mask for any sample; when it is asked for, a mask that does not fit, or that
            cannot be read, which is named.
    """

    def __init__(self, given: Any, dataset: Any, shape: tuple[int, ...]) -> None:
        self.dataset, self.shape = dataset, shape
        self._files: Sequence[Path | None] | None = None
        self._given = given
        if len(shape) != 2:
            raise ValueError(f"masks: the samples have shape {shape}, expected images")
        if isinstance(given, (str, Path)):
            self._files = _files(Path(given).expanduser(), dataset)
        elif len(given) != len(dataset):
            raise ValueError(f"masks: got {len(given)}, expected {len(dataset)}, one for each sample")

    def __getitem__(self, index: int) -> Tensor | None:
        name = f"that of sample {index}"
        if self._files is not None:
            path = self._files[index]
            if path is None:
                return None
            name, found = str(path), _read(path)
        else:
            found = self._given[index]
        return None if found is None else self._fitted(torch.as_tensor(found), index, name)

    def _fitted(self, mask: Tensor, index: int, name: str) -> Tensor:
        mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
        fitted = isinstance(self.dataset, Fitted)
        expected = self.dataset.original_shape(index) if fitted else self.shape
        if tuple(mask.shape) != expected:
            raise ValueError(f"masks: {name} has shape {tuple(mask.shape)}, expected {expected}, as its image")
        if mask.is_floating_point() and not mask.isfinite().all():
            raise ValueError(f"masks: {name} has NaN or infinite values")
        return self.dataset.fit_mask(mask != 0) if fitted else mask != 0


def _files(folder: Path, dataset: Any) -> list[Path | None]:
    """The file of every sample."""
    if not folder.is_dir():
        raise FileNotFoundError(f"masks: no folder {folder}")
    ids = getattr(dataset, "ids", None) or range(len(dataset))
    there = {
        str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*")) if _is_mask(path)
    }
    found = [there.get(str(Path(str(id)).with_suffix(""))) or there.get(str(id)) for id in ids]
    if not any(found):
        expected = ", ".join(_ENDINGS)
        raise ValueError(f"masks: no file in {folder} is called as a sample, such as {ids[0]}, with one of {expected}")
    return found


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() in _ENDINGS and not path.name.startswith(".")


def _read(path: Path) -> np.ndarray:
    """Values (H, W): of colours the largest, of palettes the numbers, without transparency."""
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path) as image:
            values = np.array(image)
            channels = [place for place, band in enumerate(image.getbands()) if band != "A"]
    except Exception as error:  # every decoder has its own ways to say that a file is damaged
        raise ValueError(f"masks: {path} cannot be read ({reason(error)})") from error
    return values[..., channels].max(-1) if values.ndim == 3 else values
