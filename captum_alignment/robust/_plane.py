"""The way to a plane inside a box."""

import math

import torch
from torch import Tensor

from captum_alignment._core._inputs import accumulation_dtype, per_sample, per_sample_norm, rows

#: A box cuts ever more coordinates off while the step grows; so many times the rest is solved for the plane.
_CUTS = 5


def to_plane(center: Tensor, normal: Tensor, height: Tensor, bounds: tuple[float, float], norm: float) -> Tensor:
    """The shortest step from ``center`` to the plane <normal, step> = -height (N,) that stays inside ``bounds``.

    Where the plane is out of reach the step ends in the corner of the box nearest to it. The step has the form
    min(t, cap) * direction; what it gains grows ever more slowly with t, so Newton's method rises to the solution. In
    l_1 it goes along the steepest coordinates, each as far as its bound.
    """
    dtype = accumulation_dtype(center.dtype)
    # Relative to its largest entry, the normal neither overflows nor underflows when it is squared.
    scale = per_sample_norm((normal,), math.inf).to(dtype)
    scale = torch.where(scale > 0, scale, 1)
    normal, height = normal.to(dtype) / per_sample(scale, normal), height.to(dtype) / scale
    largest = torch.finfo(dtype).max ** 0.5  # in place of infinite bounds and caps, so that 0 times it is 0
    low, high = max(bounds[0], -largest), min(bounds[1], largest)
    sign = normal.sign() * -per_sample(height.sign(), normal)
    room = torch.maximum((high - center) * sign, (low - center) * sign)
    if norm == 1:
        return (sign * _steepest_first(normal.abs(), height.abs(), room.clamp(0, largest))).to(center.dtype)
    direction = normal.abs() * sign if norm == 2 else sign
    # torch.where and comparisons of this size cost as much as ten products: hence this arithmetic.
    cap = rows(room / direction.abs().clamp(min=1 / largest), dtype).clamp(0, largest)
    gain = rows((normal * direction).abs(), dtype)
    t = torch.zeros_like(height).unsqueeze(1)
    for _ in range(_CUTS):
        missing = height.abs() - (gain * torch.minimum(cap, t)).sum(1)
        slope = (gain * (cap - t).sign().clamp(min=0)).sum(1)
        t = (t + (missing.clamp(min=0) / slope.clamp(min=1 / largest)).unsqueeze(1)).clamp(max=largest)
    return (direction * torch.minimum(t, cap).reshape(direction.shape)).to(center.dtype)


def _steepest_first(steep: Tensor, height: Tensor, room: Tensor) -> Tensor:
    """How far to go along each coordinate to gain ``height`` (N,) by the shortest step in l_1."""
    steep, room, shape = steep.flatten(1), room.flatten(1), steep.shape
    sorted_, order = steep.sort(dim=1, descending=True, stable=True)
    gain = sorted_ * room.gather(1, order)
    missing = height.unsqueeze(1) - (gain.cumsum(1) - gain)
    far = torch.minimum(missing.clamp(min=0) / sorted_.clamp(min=torch.finfo(steep.dtype).tiny), room.gather(1, order))
    return torch.zeros_like(steep).scatter_(1, order, far).reshape(shape)
