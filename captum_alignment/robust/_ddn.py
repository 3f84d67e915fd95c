"""Decoupled direction and norm, toward one rival."""

import math

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._inputs import dual, per_sample, per_sample_norm
from captum_alignment.robust._attack import margin, nearer

#: Share by which the radius shrinks or grows in the first and in the last step, and step length over radius.
_SHRINK, _LENGTH = (0.4, 0.005), (0.5, 0.01)
#: First radius over the linearized distance to the rival.
_START = 0.8


def ddn(model: Model, x: Tensor, labels: Tensor, rival: Tensor, *, steps: int, norm: float) -> tuple[Tensor, Tensor]:
    """Length (N,), inf without success, and point of the nearest adversarial on the way to ``rival`` (N,).

    After DDN (Rony et al. 2019): the perturbation is kept on a sphere (in l_inf: in a ball) whose radius shrinks while
    the point is adversarial and grows while it is not. It differs in three ways: the descent is on the margin to one
    rival, not on the cross-entropy; the radius starts near the linearized distance to that rival and every length is
    relative to it, so that images of any size and scale are treated alike; and the radius changes boldly at first and
    hardly at the end.
    """
    largest = (model.bounds[1] - model.bounds[0]) * x[0].numel() ** (1 / norm)
    best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
    delta, radius = torch.zeros_like(x), torch.zeros_like(best)
    for i in range(steps):
        bold = (1 + math.cos(math.pi * i / steps)) / 2
        shrink, length = (last + (first - last) * bold for first, last in (_SHRINK, _LENGTH))
        adversarial, lead, gradient = margin(model, x + delta, labels, rival)
        size = per_sample_norm((gradient,), dual(norm)).to(x.dtype).clamp(min=1e-12)
        distance = torch.where(adversarial, per_sample_norm((delta,), norm).to(x.dtype), torch.inf)
        best, points = nearer(distance, x + delta, best, points)
        change = torch.where(adversarial, 1 - shrink, 1 + shrink).to(x.dtype)
        radius = (_START * lead.abs() / size if i == 0 else radius * change).clamp(max=largest)
        direction = gradient / per_sample(size, x) if norm == 2 else gradient.sign()
        delta = _project(delta - length * per_sample(radius, x) * direction, per_sample(radius, x), norm)
        delta = (x + delta).clamp(*model.bounds) - x
    return best, points


def _project(delta: Tensor, radius: Tensor, norm: float) -> Tensor:
    """Onto the sphere in l_2, into the ball in l_inf."""
    if norm == 2:
        length = per_sample_norm((delta,), 2).to(delta.dtype).clamp(min=1e-12)
        return delta * (radius / per_sample(length, delta))
    return torch.minimum(torch.maximum(delta, -radius), radius)
