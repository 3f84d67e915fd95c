"""Arrays of a file of numpy.savez: images, tables, sequences."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_alignment.study.load._factories import reason
from captum_alignment.study.load._given import Features
from captum_alignment.study.load._sources import Arrays, channels_first

#: Of the values, the labels, and the names of samples and of classes.
_KEYS = (("features", "x", "images"), ("y", "labels"), ("ids",), ("classes",))


def open_npz(text: str) -> Arrays | Features:
    """The arrays of the file ``text``: ``x`` or ``images``, or ``features``; ``y`` or ``labels``, ``ids``, ``classes``.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floating. ``x`` (N, D) and ``features`` (N, ...) are no
    images, but the floating values that the model takes. ``y`` and ``ids`` are (N,), ``classes`` (K,) are names.

    Raises:
        FileNotFoundError, ValueError: no such file, or other contents.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--data: no file {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"--data: {path} is no npz file, or a damaged one; expected that of numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as content:
            names = content.files
            values, labels, ids, classes = (_first(content, keys) for keys in _KEYS)
            as_is = "features" in names or (values is not None and values.ndim == 2)
    except Exception as error:  # zip, zlib and numpy have their own ways to say that a file is damaged
        raise ValueError(f"--data: {path} cannot be read as npz ({reason(error)})") from error
    if values is None:
        raise ValueError(f"--data: {path} holds {', '.join(names) or 'nothing'}, expected an array x or images")
    what = f"{'values' if as_is else 'images'} of {path}"
    if values.dtype.kind != "f" and (as_is or values.dtype != np.uint8):
        raise ValueError(f"--data: {what}: {values.dtype}, expected {'' if as_is else 'uint8, or '}floating ones")
    if not len(values):
        raise ValueError(f"--data: {path} holds no images")
    for name, array in (("labels", labels), ("ids", ids)):
        if array is not None and array.shape != (len(values),):
            raise ValueError(f"--data: {name} of {path}: shape {array.shape}, expected ({len(values)},)")
    if labels is not None and labels.dtype.kind not in "iu":
        raise ValueError(f"--data: labels of {path}: {labels.dtype}, expected integers")
    labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    named: dict[str, Any] = {
        name: None if given is None else [str(value) for value in given]
        for name, given in (("ids", ids), ("classes", classes))
    }
    if as_is:
        return Features(values, labels, **named)
    return Arrays(torch.from_numpy(channels_first(values, what)), labels, **named)


def _first(content: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((content[key] for key in keys if key in content), None)
