"""Spearman's rank correlation of attributions."""

import torch
from torch import Tensor

from captum_alignment._core._inputs import TensorOrTuple, as_tensors, check_same_shapes, flatten, widest_dtype


def rank_correlation(attributions: TensorOrTuple, others: TensorOrTuple) -> Tensor:
    """Spearman's rank correlation (N,) of two attributions of each sample; equal values share a mean rank.

    In float64, or float32 on a device that lacks it.

    Args:
        attributions: tensor (N, ...) or a tuple of such; a tuple is one joint vector per sample.
        others: of the same shapes.

    Returns:
        Values in [-1, 1], exactly 1 for equal rankings; NaN where a map is constant or has NaN entries.

    Raises:
        TypeError, ValueError: not floating tensors, shapes that differ.

    >>> rank_correlation(torch.tensor([[1.0, 2, 3]]), torch.tensor([[1.0, 4, 9]]))
    tensor([1.], dtype=torch.float64)

    Spearman (1904).
    """
    pair = as_tensors(attributions, "attributions"), as_tensors(others, "others")
    check_same_shapes(*pair, "others", of="the attributions")
    a, b = (_centred_ranks(flatten(maps, widest_dtype(maps[0].device))) for maps in pair)
    # The root of a square is exact, so equal rankings have exactly 1.
    correlation = (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()
    return correlation.clamp(-1, 1)


def _centred_ranks(values: Tensor) -> Tensor:
    """Mean ranks of the values in each row, minus their mean; NaN in rows with NaN."""
    ordered = values.sort(1).values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    ranks = (below + up_to - values.shape[1]) / 2
    return torch.where(values.isnan().any(1, keepdim=True), torch.nan, ranks.to(values.dtype))
