"""DeepFool with one forward pass per step."""

from typing import NamedTuple

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import check_count, dual, per_sample, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack

#: A rival is skipped in a step only if its gradient would have to be this much longer than any seen for the sample.
_REACH = 2.0
#: Relative change up to which two gradients are one, measured twice: rounding, while the linear piece is the same.
_SAME = 1e-4
#: A backward pass over less than this share of a graph's samples is worth another forward pass over them alone.
_SHRINK = 0.9


class _Samples(NamedTuple):
    """The samples that still have their class, and what the steps so far tell about them."""

    place: Tensor  # (n,) in the batch
    start: Tensor  # (n, ...)
    total: Tensor  # (n, ...) the sum of the steps
    classes: Tensor  # (n, C) candidates: their own class, then the rivals
    nearest: Tensor  # (n,) the column of the rival of the last step
    direction: Tensor  # (n, ...) its gradient there
    lengths: Tensor  # (n, C - 1) gradient lengths of the rivals on the present linear piece, 0 where not measured
    reach: Tensor  # (n,) the longest gradient seen so far, inf before the first step


class DeepFool(UntargetedAttack):
    """Steps to the nearest linearized decision boundary until the class changes (Moosavi-Dezfooli et al. 2016).

    The iterates are those of Foolbox's `L2DeepFoolAttack` and `LinfDeepFoolAttack` with the same arguments; the cost is
    not: one forward pass per step serves all rivals, finished samples leave the batch, and a sample takes no backward
    pass for rivals that cannot be nearest. The first step measures all rivals. From then on, a rival is skipped where
    it would be nearest only with a gradient more than twice as long as all that the sample has seen; or, while the
    gradient of the last step's rival comes back unchanged (the sample is still on one linear piece of the network),
    longer than its own there. Neither is a bound: a network whose gradients grow faster may lead elsewhere.

    Args:
        norm: 2 or inf.
        steps: at most that many steps.
        candidates: the most likely classes of the input that are considered, its own included; None considers all.
        overshoot: share by which every step goes beyond the boundary.

    Raises:
        ValueError: another norm, no steps, fewer than 2 candidates; at run time a criterion other than
            `Misclassification`.
    """

    def __init__(
        self, *, norm: float = 2, steps: int = 50, candidates: int | None = 10, overshoot: float = 0.02
    ) -> None:
        super().__init__(norm=norm)
        self.steps = check_count("steps", steps)
        if candidates is not None:
            check_count("candidates", candidates, least=2)
        self.candidates = candidates
        self.overshoot = overshoot

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        x = x.clone()
        samples: _Samples | None = None
        for _ in range(self.steps):
            index = torch.arange(len(x), device=x.device) if samples is None else samples.place
            graph = _graph(model, x, index)
            samples = samples or self._begin(x.clone(), index, graph.scores.detach())
            going = graph.scores.argmax(1) == labels[index]
            if not going.any():
                break
            samples = _Samples(*(part[going] for part in samples))
            samples = self._step(model, x, graph, going.nonzero().flatten(), samples)
            x[samples.place] = (samples.start + (1 + self.overshoot) * samples.total).clamp(*model.bounds)
        return x

    def _begin(self, x: Tensor, index: Tensor, scores: Tensor) -> _Samples:
        classes = scores.argsort(1, descending=True)[:, : self.candidates]
        zeros = torch.zeros_like(x)
        lengths = x.new_zeros(len(x), classes.shape[1] - 1)
        reach = x.new_full((len(x),), torch.inf)
        return _Samples(index, x, zeros, classes, torch.zeros_like(index), zeros, lengths, reach)

    def _step(self, model: Model, x: Tensor, graph: ScoreGraph, rows: Tensor, samples: _Samples) -> _Samples:
        """The samples, which lie in the ``rows`` of the graph, after a step to the nearest linearized boundary."""
        own, rivals = samples.classes[:, :1], samples.classes[:, 1:]
        scores = graph.scores.detach()[rows]
        gaps = (scores.gather(1, own) - scores.gather(1, rivals)).abs()
        best = torch.full_like(samples.reach, torch.inf)
        lengths, nearest, direction = samples.lengths.clone(), samples.nearest.clone(), samples.direction.clone()
        unasked = torch.ones_like(gaps, dtype=torch.bool)
        inside = asking = torch.arange(len(gaps), device=x.device)  # the samples of the graph, and those that need it
        column, longest = nearest, samples.reach  # the rival that each sample asks for: first that of its last step
        for k in range(gaps.shape[1]):
            if k:
                longest = torch.maximum(longest, lengths.amax(1))
                bound = torch.where(lengths > 0, (1 + _SAME) * lengths, _REACH * longest.unsqueeze(1))
                promise, column = torch.where(unasked, gaps / bound, torch.inf).min(1)
                asking = (promise < best).nonzero().flatten()
                if not len(asking):
                    break
            if len(asking) < _SHRINK * len(graph.scores):
                graph = _graph(model, x, samples.place[asking])
                inside, rows = asking, torch.arange(len(asking), device=x.device)
            asked = column[inside]
            weights = torch.zeros_like(graph.scores)
            weights[rows, rivals[inside, asked]] = 1
            weights[rows, own[inside, 0]] = -1
            gradient = graph.gradient(weights)[0][rows]
            length = per_sample_norm((gradient,), dual(self.norm)).to(x.dtype)
            if not k:
                change = per_sample_norm((gradient - direction,), dual(self.norm)).to(x.dtype)
                lengths[change > _SAME * length] = 0
            lengths[inside, asked] = length
            unasked[inside, asked] = False
            distance = gaps[inside, asked] / (length + 1e-8)
            nearer = distance < best[inside]
            won = inside[nearer]
            best[won], nearest[won], direction[won] = distance[nearer], asked[nearer], gradient[nearer]
        longest = torch.maximum(longest, lengths.amax(1))
        reach = torch.where(longest.isinf(), lengths.amax(1), longest)
        # As in Foolbox, 1e-4 further than the boundary.
        if self.norm == 2:
            size = lengths.gather(1, nearest.unsqueeze(1)).squeeze(1)
            step = per_sample((best + 1e-4) / (size + 1e-8), direction) * direction
        else:
            step = per_sample(best + 1e-4, direction) * direction.sign()
        return samples._replace(
            total=samples.total + step, nearest=nearest, direction=direction, lengths=lengths, reach=reach
        )


def _graph(model: Model, x: Tensor, index: Tensor) -> ScoreGraph:
    return ScoreGraph(score_function(subset(model, index)), (x[index],))
