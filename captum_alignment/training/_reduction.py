"""How the losses of a batch became one number."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from captum_alignment.training._graph import Count

#: "mean", "sum", or a function from a batch to what the sum of its losses is divided by.
Reduction: TypeAlias = Literal["mean", "sum"] | Callable[[Any], Count]


def check_reduction(reduction: Reduction) -> Reduction:
    """``reduction`` if it is one, else a `ValueError`."""
    if reduction not in ("mean", "sum") and not callable(reduction):
        raise ValueError(
            f"reduction: got {reduction!r}, expected 'mean', 'sum' or a function that returns, for a batch, what the "
            "sum of the losses was divided by"
        )
    return reduction


def count_of(reduction: Reduction, batch: Any) -> Count | None:
    """What the sum of the batch's losses was divided by; None is the number of samples."""
    if callable(reduction):
        return reduction(batch)
    return None if reduction == "mean" else 1.0
