"""Data in the forms in which people have them: pairs of arrays, loaders, rows with named fields, tables."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

#: Under which names rows keep images and labels, those of Hugging Face's data sets and processors among them.
_IMAGES = ("image", "img", "pixel_values", "x")
_LABELS = ("label", "labels", "fine_label", "y")


class Features(Dataset[Any]):
    """Floating arrays (N, ...) that are no images, taken as they are: tables, sequences, embeddings.

    ``evaluate(model, Features(x, y), bounds=(-4, 4))``: the model gets batches (n, ...) of ``x``.

    Args:
        values: (N, ...), an array or a tensor.
        labels: (N,), or None.
        ids, classes: names of the samples and of the classes.

    Raises:
        TypeError: values that are not floating.
        ValueError: no second dimension, or labels or ids of another length.
    """

    as_is = True

    def __init__(
        self, values: Any, labels: Any = None, *, ids: Sequence[Any] | None = None, classes: Sequence[str] | None = None
    ) -> None:
        self.values = torch.as_tensor(values)
        if not self.values.is_floating_point():
            raise TypeError(f"values: got {self.values.dtype}, expected floating ones")
        if self.values.ndim < 2:
            raise ValueError(
                f"values: got shape {tuple(self.values.shape)}, expected (N, ...), at least two dimensions"
            )
        self.labels = None if labels is None else torch.as_tensor(labels)
        self.ids = [str(index) for index in (range(len(self.values)) if ids is None else ids)]
        self.classes = None if classes is None else tuple(classes)
        for name, column in (("labels", self.labels), ("ids", self.ids)):
            if column is not None and len(column) != len(self.values):
                raise ValueError(f"{name}: got {len(column)}, expected {len(self.values)}, one for each of the values")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index] if self.labels is None else (self.values[index], self.labels[index])


class _Pairs(Dataset[Any]):
    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.labels[index]


class _Part(Dataset[Any]):
    """Some samples of ``dataset``, with their names in all of it; ``collate`` makes a batch of a list of them."""

    def __init__(self, dataset: Any, indices: Sequence[int], collate: Callable[[list[Any]], Any] | None = None) -> None:
        self.dataset = as_dataset(dataset) if collate is None else dataset
        self.indices, self.collate = indices, collate
        whole = as_dataset(dataset)
        names = getattr(whole, "ids", None)
        self.ids = [str(index) if names is None else names[index] for index in indices]
        self.classes = named_classes(whole)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[self.indices[index]]
        if self.collate is None:
            return sample
        batch = self.collate([sample])
        if isinstance(batch, Mapping):
            return {name: values[0] for name, values in batch.items()}
        return tuple(values[0] for values in batch) if isinstance(batch, (tuple, list)) else batch[0]


class _Rows(Dataset[Any]):
    """Hugging Face's rows, whose label -1 says that there is none."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        feature = next((rows.features[name] for name in _LABELS if name in rows.features), None)
        self.classes = getattr(feature, "names", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        image, label = fields(self.rows[index])
        return image if label is None or (self.classes is not None and label == -1) else (image, label)


def as_dataset(data: Any) -> Any:
    """``data`` as a map-style data set: ``[i]`` is what `fields` takes.

    A pair (x, y) of arrays, also as a mapping of two columns, is N samples, never two; a `DataLoader` is the samples of
    its data set that its sampler draws, without their order.

    Raises:
        TypeError, ValueError: what has no length or no order, a loader that repeats samples or leaves some out, arrays
            of different lengths, several splits at once.
    """
    if isinstance(data, Tensor) and (data.is_nested or data.layout != torch.strided):
        raise TypeError("dataset: got a nested or sparse tensor, expected a dense one, or a list of images")
    if isinstance(data, DataLoader):
        plain = data.batch_size is None or data.collate_fn is default_collate
        return _Part(data.dataset, _drawn(data), None if plain else data.collate_fn)
    if isinstance(data, Subset):
        return _Part(data.dataset, data.indices)
    if isinstance(getattr(data, "features", None), Mapping) and hasattr(data, "column_names"):
        return _Rows(data)
    if isinstance(data, Mapping):
        data = _columns(data)
    if (pair := _pair(data)) is not None:
        return pair
    indexed = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not indexed or isinstance(data, (str, bytes, IterableDataset)):
        raise TypeError(
            f"dataset: got {type(data).__name__}, expected one with a length and dataset[i] "
            "(an iterable data set has no order that a run could continue)"
        )
    return data


def _columns(data: Mapping[str, Any]) -> tuple[Any, Any]:
    if not ({*_IMAGES} & data.keys() and {*_LABELS} & data.keys()):
        names = ", ".join(map(repr, list(data)[:5])) or "nothing"
        raise TypeError(f"dataset: got {type(data).__name__} with {names}, expected one data set, such as one of them")
    return fields(data)


def _pair(data: Any) -> Any:
    """The samples of a pair (x, y) of arrays; None for anything else, such as a list of two images."""
    if not (isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], (Tensor, np.ndarray))):
        return None
    x, y = data
    if not isinstance(y, (Tensor, np.ndarray)):
        if not all(isinstance(item, (int, float, np.number)) for item in (y if isinstance(y, (tuple, list)) else [y])):
            return None
        y = np.asarray(y)
    if isinstance(data, list) and x.shape == y.shape:
        return None
    labels = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if x.ndim < 2 or labels.shape != (len(x),):
        raise ValueError(
            f"dataset: got a pair of shapes {tuple(x.shape)} and {tuple(y.shape)}, expected x (N, ...) and y (N,), "
            "one class index each (no multi-hot or soft labels)"
        )
    return Features(x, labels) if x.ndim == 2 else _Pairs(x, labels)


def _drawn(loader: DataLoader[Any]) -> list[int]:
    """The samples that one pass over ``loader`` draws."""
    sampler, batches, size = loader.sampler, loader.batch_sampler, len(as_dataset(loader.dataset))
    deciding = sampler if batches is None or type(batches) is BatchSampler else batches
    if type(deciding) is SubsetRandomSampler:
        return sorted(int(index) for index in deciding.indices)
    shuffled = type(deciding) is RandomSampler and not deciding.replacement and deciding.num_samples == size
    if type(deciding) is SequentialSampler or shuffled:
        return list(range(size))
    name = type(deciding).__name__
    raise TypeError(f"dataset: got a DataLoader whose {name} may repeat or leave out samples, expected its data set")


def fields(item: Any) -> tuple[Any, Any]:
    """The image and the label, or None, of one item: a tuple, a row with names, or the image alone.

    Raises:
        ValueError: a row without an image, a tuple of more than two.
    """
    if isinstance(item, Mapping):
        image, label = (next((name for name in names if name in item), None) for names in (_IMAGES, _LABELS))
        if image is None:
            names = ", ".join(map(str, item)) or "nothing"
            raise ValueError(f"a row with {names}, expected one of {', '.join(_IMAGES)}, and of {', '.join(_LABELS)}")
        return _decoded(item[image]), None if label is None else item[label]
    if not isinstance(item, (tuple, list)):
        return item, None
    if not 1 <= len(item) <= 2:
        raise ValueError(f"a {type(item).__name__} of {len(item)}, expected (image, label)")
    return (item[0], item[1]) if len(item) == 2 else (item[0], None)


def _decoded(image: Any) -> Any:
    """Hugging Face keeps an image that is not decoded as its bytes, or its path."""
    if not (isinstance(image, Mapping) and image.keys() == {"bytes", "path"}):
        return image
    from PIL import Image  # noqa: PLC0415 - needed for these rows only

    return Image.open(image["path"] if image["bytes"] is None else BytesIO(image["bytes"]))


def named_classes(dataset: Any) -> tuple[str, ...] | None:
    """Names of the classes where ``dataset`` has them."""
    names = getattr(dataset, "classes", None)
    # ImageNet's are tuples of synonyms.
    return None if names is None else tuple(name[0] if isinstance(name, tuple) else str(name) for name in names)
