"""From a found adversarial to a nearer one: bisection along the segment, and over epsilon."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from captum_alignment._core._foolbox import ScoresModel
from captum_alignment._core._inputs import per_sample
from captum_alignment._core._verified import verified

#: The segment is searched until its unresolved part is this share of the distance, or this many times.
_RELATIVE, _TRIALS = 2e-4, 40
#: Good attacks leave little to gain: the first trial comes nearer by so many times that share, the next by twice as
#: much, and so on until one fails; only then is the bracket halved.
_FIRST = 8
#: epsilon doubles from 2^-9 of the largest possible perturbation to all of it, then its bracket is halved 6 times.
_DOUBLINGS, _EPSILON_HALVINGS = 9, 6


def bisect_segment(
    model: ScoresModel, found: Tensor, distance: Tensor, labels: Tensor, norm: float
) -> tuple[Tensor, Tensor]:
    """The nearest point known to be adversarial on the segment from the input to ``found``; never a farther one."""
    x = model.packed
    points, best = found.clone(), distance.clone()
    low = torch.zeros_like(distance)
    high = torch.ones_like(distance)
    reach = torch.full_like(distance, _FIRST * _RELATIVE)
    for _ in range(_TRIALS):
        open_ = best.isfinite() & (high - low > _RELATIVE * high)
        index = open_.nonzero().flatten()
        if not len(index):
            break
        middle = torch.maximum((low + high) / 2, high - reach)[index]
        part = model.subset(index)
        step = per_sample(middle, x).to(x.dtype)
        candidate, length = verified(part, torch.lerp(x[index], found[index], step), labels[index], norm)
        # Rounding to a half dtype may lengthen the step: a candidate counts only if it is nearer.
        hit = length < best[index]
        high[index] = torch.where(hit, middle, high[index])
        low[index] = torch.where(hit, low[index], middle)
        reach[index] *= 2
        won = index[hit]
        points[won], best[won] = candidate[hit], length[hit]
    return points, best


def minimise_epsilon(
    attack: Callable[[ScoresModel, Tensor, float], Tensor], model: ScoresModel, labels: Tensor, norm: float
) -> tuple[Tensor, Tensor]:
    """The nearest adversarial (points, distances (N,)) of ``attack(model, labels, epsilon)`` over epsilon, per sample.

    The smallest successful epsilon of a doubling grid first, because success need not be monotone, then bisection
    between it and its predecessor. Samples that stand at the same epsilon are attacked together.
    """
    x, (lower, upper) = model.packed, model.bounds
    if not math.isfinite(upper - lower):
        raise ValueError(f"bounds: got {(lower, upper)}, expected finite bounds (they end the search over epsilon)")
    largest = (upper - lower) * x[0].numel() ** (1 / norm)
    points, best = x.clone(), torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
    low, high = torch.zeros_like(best), torch.full_like(best, torch.inf)

    def try_epsilon(epsilon: float, index: Tensor) -> Tensor:
        part = model.subset(index)
        found, distance = verified(part, attack(part, labels[index], epsilon), labels[index], norm)
        nearer = distance < best[index]
        points[index[nearer]], best[index[nearer]] = found[nearer], distance[nearer]
        return distance.isfinite()

    for k in range(_DOUBLINGS, -1, -1):
        index = high.isinf().nonzero().flatten()
        if not len(index):
            break
        epsilon = largest / 2**k
        hit = try_epsilon(epsilon, index)
        high[index[hit]] = epsilon
        low[index[~hit]] = epsilon
    solved = high.isfinite()
    for _ in range(_EPSILON_HALVINGS):
        middle = (low + high) / 2
        for epsilon in middle[solved].unique():
            index = (solved & (middle == epsilon)).nonzero().flatten()
            hit = try_epsilon(float(epsilon), index)
            high[index[hit]] = epsilon
            low[index[~hit]] = epsilon
    return points, best
