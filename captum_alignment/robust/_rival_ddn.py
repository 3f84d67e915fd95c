"""Decoupled direction and norm, toward each of the nearest rivals."""

import math

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._inputs import check_count, dual, per_sample, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack

#: Share by which the radius shrinks or grows in the first and in the last step, and step length over radius.
_SHRINK, _LENGTH = (0.4, 0.005), (0.5, 0.01)


class RivalDDN(UntargetedAttack):
    """Minimum-norm attack by projected descent on the margin to one rival at a time.

    After DDN (Rony et al. 2019): the perturbation is kept on a sphere whose radius shrinks while the point is
    adversarial and grows while it is not. It differs in what made it find nearer points on robust nets: the descent is
    on the margin to a chosen rival, not on the cross-entropy; the radius starts at half the linearized distance to that
    rival and every length is relative to it, so that images of any size and scale are treated alike; and the radius
    changes boldly at first and hardly at the end. The most likely rivals get a long run, some more a short one; where a
    short run comes nearest, its rival gets a long run as well.

    Args:
        norm: 2 or inf.
        likely: how many of the most likely other classes get a long run.
        others: how many of the next get a short run.
        long, short: steps of a run.

    Raises:
        ValueError: another norm, numbers that are not positive; at run time a criterion other than
            `Misclassification`.
    """

    def __init__(self, *, norm: float = 2, likely: int = 1, others: int = 3, long: int = 75, short: int = 12) -> None:
        super().__init__(norm=norm)
        self.likely = check_count("likely", likely)
        self.others = check_count("others", others, least=0)
        self.long = check_count("long", long)
        self.short = check_count("short", short)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            scores = score_function(model)(x)
        scores = scores.scatter(1, labels.unsqueeze(1), -torch.inf)
        rivals = scores.topk(min(self.likely + self.others, scores.shape[1] - 1), 1).indices
        best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
        promising = torch.full_like(labels, -1)  # the rival of a short run that came nearest
        for k, rival in enumerate(rivals.unbind(1)):
            steps = self.long if k < self.likely else self.short
            length, candidate = self._descend(model, x, labels, rival, steps)
            if k >= self.likely:
                promising = torch.where(length < best, rival, promising)
            best, points = _nearer(length, candidate, best, points)
        index = (promising >= 0).nonzero().flatten()
        if len(index):
            part = subset(model, index)
            found = self._descend(part, x[index], labels[index], promising[index], self.long)
            best[index], points[index] = _nearer(*found, best[index], points[index])
        return points

    def _descend(self, model: Model, x: Tensor, labels: Tensor, rival: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Length (N,), inf without success, and point of the nearest adversarial on the way to ``rival`` (N,)."""
        score = score_function(model)
        pair = torch.stack([labels, rival], 1)
        largest = (model.bounds[1] - model.bounds[0]) * x[0].numel() ** (1 / self.norm)
        best, nearest = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()
        radius = best
        delta = torch.zeros_like(x)
        for i in range(steps):
            bold = (1 + math.cos(math.pi * i / steps)) / 2
            shrink, length = (last + (first - last) * bold for first, last in (_SHRINK, _LENGTH))
            point = (x + delta).requires_grad_()
            with torch.enable_grad():
                scores = score(point)
                margin = scores.gather(1, pair) @ scores.new_tensor([1.0, -1.0])
                (gradient,) = torch.autograd.grad(margin.sum(), point)
            size = per_sample_norm((gradient,), dual(self.norm)).to(x.dtype).clamp(min=1e-12)
            adversarial = scores.detach().argmax(1) != labels
            distance = torch.where(adversarial, per_sample_norm((delta,), self.norm).to(x.dtype), torch.inf)
            best, nearest = _nearer(distance, point.detach(), best, nearest)
            if i == 0:
                radius = (margin.detach().abs() / (2 * size)).to(x.dtype).clamp(max=largest)
            else:
                radius = (radius * torch.where(adversarial, 1 - shrink, 1 + shrink)).clamp(max=largest)
            direction = gradient / per_sample(size, x) if self.norm == 2 else gradient.sign()
            delta = self._project(delta - length * per_sample(radius, x) * direction, radius)
            delta = (x + delta).clamp(*model.bounds) - x
        return best, nearest

    def _project(self, delta: Tensor, radius: Tensor) -> Tensor:
        """Onto the sphere in l_2, into the ball in l_inf."""
        if self.norm == 2:
            length = per_sample_norm((delta,), 2).to(delta.dtype).clamp(min=1e-12)
            return delta * per_sample(radius / length, delta)
        return torch.minimum(torch.maximum(delta, -per_sample(radius, delta)), per_sample(radius, delta))


def _nearer(length: Tensor, candidate: Tensor, best: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    wins = length < best
    return torch.where(wins, length, best), torch.where(per_sample(wins, points), candidate, points)
