"""A descent toward one rival along the mean of the linearized boundaries that it meets."""

import math

import torch
from torch import Tensor

from captum_alignment._core._foolbox_names import Model
from captum_alignment._core._inputs import accumulation_dtype, per_sample, per_sample_dot, per_sample_norm
from captum_alignment.robust._attack import margin, nearer
from captum_alignment.robust._plane import to_plane

#: The newest plane weighs at least so much in the mean.
_NEWEST = 0.4
#: Pull of the input's own projection, and by how much a step overshoots: at first and in the end.
_PULL, _OVERSHOOT = (1.0, 0.1), (1.1, 1.0)


def mean_plane(
    model: Model,
    x: Tensor,
    labels: Tensor | None,
    rival: Tensor,
    *,
    steps: int,
    norm: float,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Length (N,), inf without success, and point of the nearest adversarial on the way to ``rival`` (N,).

    Each step linearizes the margin at its point and projects onto the mean of that plane and those before it: at first
    from the input, as in the search for the design point in structural reliability (Hasofer and Lind 1974), which jumps
    to the right region, at last almost only from the point, as FAB does, which settles there. The mean evens out the
    kinks of a piecewise linear network, on which both methods alone jump to and fro. On naturally trained networks 12
    steps come as near as more than 20 of DDN or FAB, in the median; where gradients at the input mislead, those are
    needed.
    """
    best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
    point, normal = x if start is None else start, torch.zeros_like(x)
    level = torch.zeros_like(best, dtype=accumulation_dtype(x.dtype))
    for i in range(steps):
        adversarial, lead, gradient = margin(model, point, labels, rival)
        away = point - x
        distance = torch.where(adversarial, per_sample_norm((away,), norm).to(x.dtype), torch.inf)
        best, points = nearer(distance, point, best, points)
        newest = max(_NEWEST, 2 / (i + 2))
        known = lead.isfinite() & gradient.flatten(1).isfinite().all(1)  # scores that overflow have no plane
        normal = torch.where(per_sample(known, x), torch.lerp(normal, gradient, newest), normal)
        level = torch.where(known, torch.lerp(level, lead - per_sample_dot((gradient,), (away,)), newest), level)
        bold = (1 + math.cos(math.pi * i / steps)) / 2
        pull, overshoot = (last + (first - last) * bold for first, last in (_PULL, _OVERSHOOT))
        # Without an adversarial so far the last steps, too, must cross the boundary.
        stretch = per_sample(torch.where(best.isfinite(), overshoot, _OVERSHOOT[0]).to(x.dtype), x)
        # Projecting onto one plane is affine as long as no bound is met: the mixture of both is projected at once.
        origin = torch.lerp(point, x, pull)
        height = level + per_sample_dot((normal,), (origin - x,))
        step = to_plane(origin, normal, height, model.bounds, norm)
        point = (origin + stretch * step).clamp(*model.bounds)
    return best, points
