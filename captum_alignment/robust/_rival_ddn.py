"""Decoupled direction and norm, toward each of the nearest rivals."""

import math

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import check_count, dual, per_sample, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack

#: Share by which the radius shrinks or grows in the first and in the last step, and step length over radius.
_SHRINK, _LENGTH = (0.4, 0.005), (0.5, 0.01)
#: So many of the most likely other classes are linearized, or more where more runs are asked for.
_LINEARIZED = 9
#: A rival gets no run if its linearized boundary is farther than the nearest adversarial by this factor.
_FARTHER = 1.5
#: Where the medium run comes nearer than the short one by less than this factor, short runs tell the rivals apart.
_EASY = 1.1


class RivalDDN(UntargetedAttack):
    """Minimum-norm attack by projected descent on the margin to one rival at a time.

    After DDN (Rony et al. 2019): the perturbation is kept on a sphere whose radius shrinks while the point is
    adversarial and grows while it is not. It differs in what made it find nearer points on robust nets: the descent is
    on the margin to a chosen rival, not on the cross-entropy; the radius starts at half the linearized distance to that
    rival and every length is relative to it, so that images of any size and scale are treated alike; and the radius
    changes boldly at first and hardly at the end.

    The work goes where it pays, sample by sample. The rivals with the nearest linearized boundaries get a short run,
    the one that came nearest a medium one. If that gained little, as on most natural networks, the short runs are to be
    believed: besides, only rivals that could come nearer with such a gain get a medium run. Otherwise, as on robust
    networks, the most likely rivals get a long run each, and the winner of the short runs too.

    Args:
        norm: 2 or inf.
        rivals: at most how many rivals get a short run.
        likely: at most how many rivals get a medium or a long run.
        short, medium, long: steps of a run.

    Raises:
        ValueError: another norm, numbers that are not positive; at run time a criterion other than
            `Misclassification`.
    """

    def __init__(
        self, *, norm: float = 2, rivals: int = 4, likely: int = 1, short: int = 10, medium: int = 20, long: int = 75
    ) -> None:
        super().__init__(norm=norm)
        self.rivals = check_count("rivals", rivals)
        self.likely = check_count("likely", likely)
        self.short = check_count("short", short)
        self.medium = check_count("medium", medium)
        self.long = check_count("long", long)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        classes, linear = self._linearized(model, x, labels)
        best, points = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype), x.clone()

        def run(where: Tensor, column: Tensor, steps: int) -> Tensor:
            """Lengths (N,) of runs to the classes in ``column`` (N,), inf where there was none or no success."""
            nonlocal best, points
            lengths, index = torch.full_like(best, torch.inf), where.nonzero().flatten()
            if len(index):
                rival = classes[index, column[index]]
                found = self._descend(subset(model, index), x[index], labels[index], rival, steps)
                lengths[index] = found[0]
                best[index], points[index] = _nearer(*found, best[index], points[index])
            return lengths

        short = torch.full_like(linear, torch.inf)
        for column in linear.argsort(1)[:, : self.rivals].unbind(1):
            lengths = run(_column(linear, column) < _FARTHER * best, column, self.short)
            short.scatter_(1, column.unsqueeze(1), lengths.unsqueeze(1))
        first, winner = short.min(1)
        run(first.isfinite(), winner, self.medium)
        gain = first / best  # NaN where the short runs failed
        easy = gain < _EASY
        for column in short.argsort(1)[:, 1 : self.likely].unbind(1):
            run(easy & (_column(short, column) < best * gain.square()), column, self.medium)
        for k in range(min(self.likely, classes.shape[1])):
            run(~easy, torch.full_like(winner, k), self.long)
        run(~easy & first.isfinite() & (winner >= self.likely), winner, self.long)
        return points

    def _linearized(self, model: Model, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely other classes (N, R) and the linearized distances to them."""
        graph = ScoreGraph(score_function(model), (x,))
        scores = graph.scores.detach()
        others = scores.scatter(1, labels.unsqueeze(1), -torch.inf)
        count = min(max(self.rivals, self.likely, _LINEARIZED), scores.shape[1] - 1)
        top, classes = others.topk(count, 1)
        own = graph.one_hot(labels)
        lengths = [
            per_sample_norm(graph.gradient(graph.one_hot(rival) - own), dual(self.norm)) for rival in classes.unbind(1)
        ]
        gaps = scores.gather(1, labels.unsqueeze(1)) - top
        return classes, gaps.to(x.dtype) / torch.stack(lengths, 1).to(x.dtype).clamp(min=1e-12)

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


def _column(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(1, column.unsqueeze(1)).squeeze(1)
