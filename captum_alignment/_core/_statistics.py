"""What results print of their per-sample values."""

import math

import torch
from torch import Tensor


def median_interval(values: Tensor) -> tuple[float, float, float]:
    """The median and its 95 % interval by order statistics (Conover 1999, Section 3.2), NaN left out.

    The interval needs no assumption on the distribution, and infinite values are fine. Below 6 samples no two order
    statistics reach 95 %: then it is NaN.

    Args:
        values: (N,), in any unit, which is that of the result.

    Raises:
        TypeError: not a tensor.

    >>> median_interval(torch.arange(9.0))
    (4.0, 1.0, 8.0)
    """
    ordered = values.detach().cpu().double().flatten()
    ordered = ordered[~ordered.isnan()].sort().values
    n = len(ordered)
    if n == 0:
        return math.nan, math.nan, math.nan
    # torch.quantile interpolates, and inf - inf is NaN where both neighbours are infinite.
    lower, upper = float(ordered[(n - 1) // 2]), float(ordered[n // 2])
    median = lower if lower == upper else (lower + upper) / 2
    if n < 6:
        return median, math.nan, math.nan
    half = 1.959964 * math.sqrt(n) / 2
    return median, float(ordered[max(math.floor(n / 2 - half), 0)]), float(ordered[min(math.ceil(n / 2 + half), n - 1)])


def describe(values: Tensor) -> str:
    """The median and its interval as text of fixed width, e.g. ``  0.5227  [0.4902, 0.5538]``."""
    median, low, high = median_interval(values)
    interval = "" if math.isnan(low) else f"  [{low:.4g}, {high:.4g}]"
    return f"{median:10.4g}{interval}"


def all_finite(*tensors: Tensor) -> Tensor:
    """Where every one of the tensors (N,) is finite."""
    return torch.stack([t.isfinite() for t in tensors]).all(0)
