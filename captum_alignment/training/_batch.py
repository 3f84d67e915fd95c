"""What a training loop hands over: where a batch holds inputs and target, and tensors that stand in for its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import Tensor

Unpack: TypeAlias = Callable[[Any], tuple[Any, ...]]


def unpack_pair(batch: Any) -> tuple[Any, ...]:
    """A batch that is itself ``(inputs, target, *extras)``, else a `TypeError`."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise TypeError(
            f"batch: got {type(batch).__name__}, expected (inputs, target, ...); say where they are, "
            "e.g. unpack=lambda batch: (batch['image'], batch['label'])"
        )
    return tuple(batch)


def unpacked(batch: Any, unpack: Unpack | None) -> tuple[Any, ...]:
    """``(inputs, target, *extras)`` of a batch, with several inputs as a tuple."""
    found = (unpack or unpack_pair)(batch)
    if not isinstance(found, (tuple, list)) or len(found) < 2:
        raise TypeError(f"unpack: returned {type(found).__name__}, expected a tuple (inputs, target, *extras)")
    inputs, *rest = found
    # The default collate function makes lists of tuples.
    return (tuple(inputs) if isinstance(inputs, list) else inputs, *rest)


@contextmanager
def exchanged(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """``tensors`` hold ``values``, and afterwards their own again, which nobody has written to.

    It is the memory behind them that changes: theirs may be a data set's, read-only, or expanded.
    """
    own = [tensor.data for tensor in tensors]
    try:
        for tensor, value in zip(tensors, values, strict=True):
            tensor.data = value.detach()
        yield
    finally:
        for tensor, value in zip(tensors, own, strict=True):
            tensor.data = value
