"""What results print of their per-sample values."""

import math
from statistics import NormalDist

import torch
from torch import Tensor

#: How often an interval is to cover what it is an interval of, everywhere; and as texts name it.
LEVEL = 0.95
PERCENT = f"{100 * LEVEL:g} %"
#: The standard deviations within which that share of a normal distribution lies.
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)


def median_interval(values: Tensor, shared: Tensor | None = None) -> tuple[float, float, float]:
    """The median and its interval of level `LEVEL` by order statistics (Conover 1999, Section 3.2), NaN left out.

    The interval needs no assumption on the distribution, and infinite values are fine. Below 6 samples no two order
    statistics reach it: then it is NaN.

    Args:
        values: (N,), in any unit, which is that of the result.
        shared: (N,), what each sample adds to the values of all others, for values that are not independent: the mean
            of all N moves the median. Then the interval is normal, with the variance of the median's influence
            function plus ``shared``. The chance levels of alignment share their maps:
            ``null.median() * (of_maps / of_maps.mean() - 1)`` with `alignment_null` and `alignment_null_of_maps`.

    Raises:
        TypeError: not a tensor.

    >>> median_interval(torch.arange(9.0))
    (4.0, 1.0, 8.0)
    """
    found = values.detach().cpu().double().flatten()
    known = ~found.isnan()
    ordered = found[known].sort().values
    n = len(ordered)
    if n == 0:
        return math.nan, math.nan, math.nan
    # torch.quantile interpolates, and inf - inf is NaN where both neighbours are infinite.
    lower, upper = float(ordered[(n - 1) // 2]), float(ordered[n // 2])
    median = lower if lower == upper else (lower + upper) / 2
    if 2.0 ** (1 - n) > 1 - LEVEL:
        return median, math.nan, math.nan
    half = NORMAL_QUANTILE * math.sqrt(n) / 2
    low, high = float(ordered[max(math.floor(n / 2 - half), 0)]), float(ordered[min(math.ceil(n / 2 + half), n - 1)])
    if shared is None:
        return median, low, high
    # The density at the median is what the order statistics say: the interval is NORMAL_QUANTILE / (sqrt(n) density).
    inverse_density = (high - low) * math.sqrt(n) / NORMAL_QUANTILE
    influence = (found > median).double() * inverse_density + shared.detach().cpu().double().flatten()
    half = NORMAL_QUANTILE * float(influence[known].std()) / math.sqrt(n)
    return median, median - half, median + half


def describe(values: Tensor) -> str:
    """The median and its interval as text of fixed width, e.g. ``  0.5227  [0.4902, 0.5538]``."""
    median, low, high = median_interval(values)
    interval = "" if math.isnan(low) else f"  [{low:.4g}, {high:.4g}]"
    return f"{median:10.4g}{interval}"


def all_finite(*tensors: Tensor) -> Tensor:
    """Where every one of the tensors (N,) is finite."""
    return torch.stack([t.isfinite() for t in tensors]).all(0)
