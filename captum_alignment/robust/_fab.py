"""Fast adaptive boundary attack (Croce & Hein, ICML 2020), toward one rival and as a Foolbox attack."""

import math

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function
from captum_alignment._core._inputs import accumulation_dtype, check_count, per_sample, per_sample_norm, rows
from captum_alignment.robust._attack import UntargetedAttack, margin, nearer

#: alpha_max and eta of the paper: the pull of the input's own projection, and by how much a step overshoots.
_PULL, _OVERSHOOT = 0.1, 1.05
#: 1 - beta of the paper: how much of the way back to the input a step starts from, after a point is adversarial. The
#: paper's .1 takes two to three times the steps to come as near on adversarially trained and certified networks.
_RETREAT = 0.3
#: A box cuts ever more coordinates off while the step grows; so many times the rest is solved for the plane.
_CUTS = 5


class FAB(UntargetedAttack):
    """Minimum-norm attack that projects onto the linearized boundary to a rival, again and again, inside the bounds.

    Finds the nearest points on networks whose gradients at the input mislead (adversarially trained, certified), where
    descent on a sphere comes late. Foolbox has no such attack. Each step costs one forward and one backward pass: the
    point is tested, and linearized if it fails, in one go.

    Args:
        norm: 2 or inf.
        rivals: so many of the most likely other classes are tried one after the other (the targeted form).
        steps: for each rival.

    Raises:
        ValueError: another norm, numbers that are not positive; at run time a criterion other than
            `Misclassification`.
    """

    def __init__(self, *, norm: float = 2, rivals: int = 3, steps: int = 40) -> None:
        super().__init__(norm=norm)
        self.rivals = check_count("rivals", rivals)
        self.steps = check_count("steps", steps)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            scores = score_function(model)(x).scatter(1, labels.unsqueeze(1), -torch.inf)
        best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
        for rival in scores.topk(min(self.rivals, scores.shape[1] - 1), 1).indices.unbind(1):
            found = fab(model, x, labels, rival, steps=self.steps, norm=self.norm)
            best, points = nearer(*found, best, points)
        return points


def fab(
    model: Model,
    x: Tensor,
    labels: Tensor,
    rival: Tensor,
    *,
    steps: int,
    norm: float,
    start: Tensor | None = None,
    retreat: float = _RETREAT,
) -> tuple[Tensor, Tensor]:
    """Length (N,), inf without success, and point of the nearest adversarial on the way to ``rival`` (N,)."""
    best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
    point = x if start is None else start
    for _ in range(steps):
        adversarial, lead, gradient = margin(model, point, labels, rival)
        away = point - x
        distance = torch.where(adversarial, per_sample_norm((away,), norm).to(x.dtype), torch.inf)
        best, points = nearer(distance, point, best, points)
        back = per_sample(torch.where(adversarial, retreat, 0.0).to(x.dtype), x) * away
        # The linearized margin at the input and at the point that the step starts from.
        slope = (rows(gradient, x.dtype) * rows(away, x.dtype)).sum(1)
        retreated = lead - torch.where(adversarial, retreat, 0.0).to(x.dtype) * slope
        origin = _to_plane(x, gradient, lead - slope, model.bounds, norm)
        step = _to_plane(point - back, gradient, retreated, model.bounds, norm)
        lengths = [per_sample_norm((vector,), norm).to(x.dtype) for vector in (origin, step)]
        pull = per_sample((lengths[1] / (lengths[0] + lengths[1]).clamp(min=1e-12)).clamp(max=_PULL), x)
        free = point - back + _OVERSHOOT * step
        point = torch.lerp(free, x + _OVERSHOOT * origin, pull).clamp(*model.bounds)
    return best, points


def _to_plane(center: Tensor, normal: Tensor, height: Tensor, bounds: tuple[float, float], norm: float) -> Tensor:
    """The shortest step from ``center`` to the plane <normal, step> = -height (N,) that stays inside ``bounds``.

    Where the plane is out of reach the step ends in the corner of the box nearest to it. The step has the form
    min(t, cap) * direction; what it gains grows ever more slowly with t, so Newton's method rises to the solution.
    """
    dtype = accumulation_dtype(center.dtype)
    # Relative to its largest entry, the normal neither overflows nor underflows when it is squared.
    scale = per_sample_norm((normal,), math.inf).to(dtype)
    scale = torch.where(scale > 0, scale, 1)
    normal, height = normal.to(dtype) / per_sample(scale, normal), height.to(dtype) / scale
    largest = torch.finfo(dtype).max ** 0.5  # in place of infinite bounds and caps, so that 0 times it is 0
    low, high = max(bounds[0], -largest), min(bounds[1], largest)
    sign = normal.sign() * -per_sample(height.sign(), normal)
    direction = normal.abs() * sign if norm == 2 else sign
    # torch.where and comparisons of this size cost as much as ten products: hence this arithmetic.
    room = torch.maximum((high - center) * sign, (low - center) * sign)
    cap = rows(room / direction.abs().clamp(min=1 / largest), dtype).clamp(0, largest)
    gain = rows((normal * direction).abs(), dtype)
    t = torch.zeros_like(height).unsqueeze(1)
    for _ in range(_CUTS):
        missing = height.abs() - (gain * torch.minimum(cap, t)).sum(1)
        slope = (gain * (cap - t).sign().clamp(min=0)).sum(1)
        t = (t + (missing.clamp(min=0) / slope.clamp(min=1 / largest)).unsqueeze(1)).clamp(max=largest)
    return (direction * torch.minimum(t, cap).reshape(direction.shape)).to(center.dtype)
