"""DeepFool with one forward pass for all rivals of a step."""

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
#: With fewer features the first step, which has seen least, skips no rival: passes cost too little to save some.
_FEW_FEATURES = 10_000
#: Features of the samples that go together on a CPU. Larger batches of large images are no faster per sample there,
#: and a sample that needs no further gradient takes part in the passes of those that do.
_GROUP_FEATURES = 2**17
#: Relative change up to which two gradients are one, measured twice: rounding, while the linear piece is the same.
_SAME = 1e-4


class _Samples(NamedTuple):
    """The samples that still have their class, and what the steps so far tell about them."""

    place: Tensor  # (n,) in the batch
    start: Tensor  # (n, ...)
    total: Tensor  # (n, ...) the sum of the steps
    classes: Tensor  # (n, C) candidates: their own class, then the rivals
    nearest: Tensor  # (n,) the column of the rival of the last step
    direction: Tensor  # (n, ...) its gradient there
    lengths: Tensor  # (n, C - 1) gradient lengths of the rivals on the present linear piece, 0 where unknown
    reach: Tensor  # (n,) the longest gradient seen so far, 0 before the first step


class DeepFool(UntargetedAttack):
    """Steps to the nearest linearized decision boundary until the class changes (Moosavi-Dezfooli et al. 2016).

    The iterates are those of Foolbox's `L2DeepFoolAttack` and `LinfDeepFoolAttack` with the same arguments; the cost is
    not: one forward pass serves all rivals of a step (and another over fewer samples where that pays), finished samples
    leave the batch, and a sample takes no backward pass for rivals that cannot be nearest. A rival is skipped where it
    would be nearest only with a gradient more than twice as long as all that the sample has seen; or, while the
    gradient of the last step's rival comes back unchanged (the sample is still on one linear piece of the network),
    longer than its own there. In the first step, which has seen least, one backward pass over a mixture of all skipped
    rivals looks for a longer gradient; where there may be one, and for inputs of fewer than 10,000 features, all are
    measured. None of this is a bound: a network whose gradients grow faster, or hide each other in the mixture, may
    lead elsewhere. A sample whose gradient is not finite stays where it is.

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
        group = max(1, _GROUP_FEATURES // x[0].numel()) if x.device.type == "cpu" else len(x)
        for rows in torch.arange(len(x), device=x.device).split(group):
            self._move(model, x, labels, rows)
        return x

    def _move(self, model: Model, x: Tensor, labels: Tensor, index: Tensor) -> None:
        """Moves the samples ``index`` of ``x`` in place."""
        samples: _Samples | None = None
        for _ in range(self.steps):
            if not len(index):
                break
            graph = _graph(model, x, index)
            samples = samples or self._begin(x[index], index, graph.scores.detach())
            going = graph.scores.argmax(1) == labels[index]
            if not going.any():
                break
            samples = _Samples(*(part[going] for part in samples))
            index = samples.place
            slopes = _Slopes(model, x, index, graph, going.nonzero().flatten())
            samples = self._step(slopes, samples)
            moved = (samples.start + (1 + self.overshoot) * samples.total).clamp(*model.bounds)
            known = moved.flatten(1).isfinite().all(1)
            if not known.all():  # where a gradient is not finite, a sample stays for good
                samples, moved = _Samples(*(part[known] for part in samples)), moved[known]
                index = samples.place
            x[index] = moved

    def _begin(self, x: Tensor, index: Tensor, scores: Tensor) -> _Samples:
        classes = scores.argsort(1, descending=True)[:, : self.candidates]
        zeros = torch.zeros_like(x)
        lengths = x.new_zeros(len(x), classes.shape[1] - 1)
        return _Samples(index, x, zeros, classes, torch.zeros_like(index), zeros, lengths, x.new_zeros(len(x)))

    def _step(self, slopes: "_Slopes", samples: _Samples) -> _Samples:
        """The samples after a step to the nearest linearized boundary, 1e-4 further as in Foolbox."""
        samples, distance = self._linearize(slopes, samples)
        direction = samples.direction
        if self.norm == 2:
            length = samples.lengths.gather(1, samples.nearest.unsqueeze(1)).squeeze(1)
            step = per_sample((distance + 1e-4) / (length + 1e-8), direction) * direction
        else:
            step = per_sample(distance + 1e-4, direction) * direction.sign()
        return samples._replace(total=samples.total + step)

    def _linearize(self, slopes: "_Slopes", samples: _Samples) -> tuple[_Samples, Tensor]:
        """The samples with the nearest linearized boundary at their points, and how far (n,) that is."""
        scores = slopes.scores.gather(1, samples.classes)
        gaps = (scores[:, :1] - scores[:, 1:]).abs().to(samples.lengths.dtype)
        lengths, nearest, direction = samples.lengths.clone(), samples.nearest.clone(), samples.direction.clone()
        best, unasked = torch.full_like(samples.reach, torch.inf), gaps.isfinite()  # masked classes are never asked
        unsure, few = samples.reach == 0, direction[0].numel() < _FEW_FEATURES
        first, longest, factor = bool(unsure.any()), samples.reach, torch.where(unsure & few, torch.inf, _REACH)
        # In every turn a sample asks for one gradient: that of the rival of its last step, then, one by one, of those
        # that promise to be nearer; in the first step at last that of a mixture of the others, and if it is long, of
        # each of them, too. A sample that has nothing to ask never asks again.
        turn, column, asks, mixes = 0, nearest, torch.ones_like(unsure), torch.zeros_like(unsure)
        while len(asking := (asks | mixes if first else asks).nonzero().flatten()):
            choice = column[asking]
            weights = gaps.new_zeros(len(asking), gaps.shape[1] + 1).scatter_(1, choice.unsqueeze(1) + 1, 1)
            weights[:, 0] = -1
            mixing = first and bool(mixes.any())
            if mixing:
                mixture = _mixture(gaps[asking], nearest[asking], unasked[asking])
                weights = torch.where(asks[asking].unsqueeze(1), weights, mixture)
            gradient = slopes(asking, samples.classes[asking], weights)
            length = per_sample_norm((gradient,), dual(self.norm)).to(gaps.dtype)
            if mixing:
                asked = asks[asking]
                mixed, of_nearest = asking[~asked], lengths.gather(1, nearest.unsqueeze(1)).squeeze(1)
                factor[mixed] = torch.where(length[~asked] < of_nearest[mixed], factor[mixed], torch.inf)
                unsure[mixed] = False
                asking, choice, gradient, length = asking[asked], choice[asked], gradient[asked], length[asked]
            if not turn:
                change = per_sample_norm((gradient - direction,), dual(self.norm)).to(gaps.dtype)
                lengths[change > _SAME * length] = 0
            lengths[asking, choice], unasked[asking, choice] = length, False
            distance = gaps[asking, choice] / (length + 1e-8)
            nearer = distance < best[asking]
            won = asking[nearer]
            best[won], nearest[won], direction[won] = distance[nearer], choice[nearer], gradient[nearer]
            longest = torch.maximum(longest, lengths.amax(1))
            most = factor * longest.clamp_min(torch.finfo(longest.dtype).tiny)
            bound = torch.where(lengths > 0, (1 + _SAME) * lengths, most.unsqueeze(1))
            promise, column = torch.where(unasked, gaps / bound, torch.inf).min(1)
            asks = promise < best
            if first:
                mixes = ~asks & unsure & unasked.any(1)
            turn += 1
        return samples._replace(nearest=nearest, direction=direction, lengths=lengths, reach=longest), best


class _Slopes:
    """Gradients at the samples' points, from one forward pass, or from another over fewer samples where that pays."""

    def __init__(self, model: Model, x: Tensor, place: Tensor, graph: ScoreGraph, row: Tensor) -> None:
        self._model, self._x, self._place = model, x, place
        self._graph, self._row = graph, row  # the row of the graph in which a sample lies
        self._idle = 0  # rows that went through backward passes without need
        self.scores = graph.scores.detach()[row]

    def __call__(self, asking: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Gradients of <weights, scores of classes>, both (n, C), at the n samples ``asking``, a subset of the last."""
        self._idle += len(self._graph.scores) - len(asking)
        if self._idle >= len(asking):  # as much as a forward pass over these alone
            self._graph, self._idle = _graph(self._model, self._x, self._place[asking]), 0
            self._row[asking] = torch.arange(len(asking), device=asking.device)
        row, of_scores = self._row[asking], torch.zeros_like(self._graph.scores)
        of_scores[row.unsqueeze(1), classes] = weights.to(of_scores.dtype)
        return self._graph.gradient(of_scores)[0][row]


def _graph(model: Model, x: Tensor, index: Tensor) -> ScoreGraph:
    return ScoreGraph(score_function(subset(model, index)), (x[index],))


def _mixture(gaps: Tensor, nearest: Tensor, unasked: Tensor) -> Tensor:
    """Weights (n, C) whose gradient is as long as the nearest rival's if one unasked rival is as near.

    Unless others cancel it. Three in a row sum to 0, because all gradients share that of the sample's own class, which
    would add up; but no two neighbours do, because classes with alike scores often have alike gradients.
    """
    signs = torch.full_like(gaps[0], -1)
    signs[::3] = 2
    weights = torch.where(unasked, signs * gaps.gather(1, nearest.unsqueeze(1)) / gaps, 0)
    return torch.cat([-weights.sum(1, keepdim=True), weights], 1)
