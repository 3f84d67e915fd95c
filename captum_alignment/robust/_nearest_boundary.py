"""The nearest linearized decision boundary of every sample, from as few gradients as that takes."""

from typing import NamedTuple

import torch
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._foolbox_names import Model
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import per_sample_norm

#: A rival is skipped in a step only if its gradient would have to be this much longer than any seen for the sample.
_REACH = 2.0
#: With fewer features the first step, which has seen least, skips no rival: passes cost too little to save some.
_FEW_FEATURES = 10_000
#: Relative change up to which two gradients are one, measured twice: rounding, while the linear piece is the same.
_SAME = 1e-4
#: In place of a rival's column.
_MIXTURE = -1


class Samples(NamedTuple):
    """The samples that still have their class, and what the steps so far tell about them."""

    place: Tensor  # (n,) in the batch
    start: Tensor  # (n, ...)
    total: Tensor  # (n, ...) the sum of the steps
    classes: Tensor  # (n, C) candidates: their own class, then the rivals
    nearest: Tensor  # (n,) the column of the rival of the last step
    direction: Tensor  # (n, ...) its gradient there
    lengths: Tensor  # (n, C - 1) gradient lengths of the rivals on the present linear piece, inf where unknown
    reach: Tensor  # (n,) the longest gradient seen so far

    def take(self, index: Tensor) -> "Samples":
        return Samples(*(part[index] for part in self))


class NearestBoundary:
    """The search at the samples' present points.

    A sample asks for the gradient of the rival of its last step, then, one by one, for those of rivals that promise to
    be nearer. As soon as all that is still asked fits into ``together`` rows, one pass answers it. In the first step a
    small input asks for those of all rivals; of a large one, a sample that has no more to ask asks for that of a
    mixture of the other rivals at last, and if it is long, for each of them.

    Args:
        slopes: at the samples' points, of the same n samples in the same order.
        order: of the norm that measures gradients.
        together: most rows of a pass in which samples are repeated; with 1 there is none.
        first: the samples have made no step.
    """

    def __init__(self, slopes: "Slopes", samples: Samples, order: float, *, together: int, first: bool) -> None:
        self._slopes, self._samples, self._order, self._together = slopes, samples, order, together
        scores = slopes.scores.gather(1, samples.classes)
        self._gaps = (scores[:, :1] - scores[:, 1:]).abs().to(samples.lengths.dtype)
        # Gaps of the rivals that may be asked: inf once they were, and for masked classes.
        self._rest = self._gaps.clone()
        self._length = torch.zeros_like(self._gaps)  # of the gradients of those asked
        self._distance = torch.full_like(self._gaps, torch.inf)
        self._best, self._nearest = torch.full_like(samples.reach, torch.inf), samples.nearest
        self._reach = samples.reach
        # All gradients that were asked, and the row of each.
        self._gradients: list[Tensor] = []
        self._row, self._asked = torch.zeros_like(samples.classes[:, 1:]), 0
        few = samples.direction[0].numel() < _FEW_FEATURES
        self._all, self._screening = first and few, first and not few
        self._factor = torch.full_like(self._reach, torch.inf if self._all else _REACH)
        if self._all:  # a masked class, too, where there is no other
            self._rest[:, 0].clamp_(max=torch.finfo(self._rest.dtype).max)
        self._unsure = torch.full_like(self._reach, self._screening, dtype=torch.bool)

    def find(self) -> tuple[Samples, Tensor]:
        """The samples with the nearest boundary's rival and its gradient, and how far (n,) that boundary is."""
        samples = self._samples
        known = samples.lengths
        if not self._all:
            everyone = torch.arange(len(samples.place), device=samples.place.device)
            gradient, length = self._ask(everyone, samples.nearest)
            change = per_sample_norm((gradient - samples.direction,), self._order).to(self._gaps.dtype)
            known = torch.where((change <= _SAME * length).unsqueeze(1), known, torch.inf)
        while len((asked := self._promising((1 + _SAME) * known))[0]):
            self._ask(*asked)
        lengths = torch.where(self._length > 0, self._length, known)
        row = self._row.gather(1, self._nearest.unsqueeze(1)).squeeze(1)
        direction = torch.cat(self._gradients)[row]
        found = samples._replace(nearest=self._nearest, direction=direction, lengths=lengths, reach=self._reach)
        return found, self._best

    def _promising(self, limits: Tensor) -> tuple[Tensor, Tensor, bool]:
        """What to ask next: samples (m,), in order, one rival or `_MIXTURE` (m,) for each; whether samples repeat.

        A rival is asked if it would be nearest with the longest gradient that is expected of it: the smaller of its
        limit (n, C - 1) and of factor times the longest that the sample has seen.
        """
        info = torch.finfo(self._reach.dtype)
        most = (self._factor * self._reach.clamp_min(info.tiny)).clamp_max(info.max)
        promise = self._rest / torch.minimum(limits, most.unsqueeze(1))
        asks = promise < self._best.unsqueeze(1)
        if self._screening:
            some = asks.any(1)
            sample = (some | (self._unsure & self._rest.isfinite().any(1))).nonzero().flatten()
            return sample, torch.where(some, promise.argmin(1), _MIXTURE)[sample], False
        host = asks.cpu()  # so that an accelerator is waited for once
        sample, rival = host.nonzero(as_tuple=True)
        if len(sample) > self._together:
            sample = host.any(1).nonzero().flatten().to(asks.device)
            return sample, promise.argmin(1)[sample], False
        return sample.to(asks.device), rival.to(asks.device), bool((sample.diff() == 0).any())

    def _ask(self, sample: Tensor, rival: Tensor, repeated: bool = False) -> tuple[Tensor, Tensor]:
        """Measures what `_promising` found. The gradients (m, ...) and their lengths, without those of mixtures."""
        weights = self._gaps.new_zeros(len(sample), self._gaps.shape[1] + 1)
        weights.scatter_(1, rival.unsqueeze(1) + 1, 1)[:, 0] = -1
        mixes = rival == _MIXTURE
        if self._screening:
            weights[mixes] = self._mixture(sample[mixes])
        gradient = self._slopes(sample, self._samples.classes[sample], weights, repeated=repeated)
        length = per_sample_norm((gradient,), self._order).to(self._gaps.dtype)
        if self._screening:
            self._screen(sample[mixes], length[mixes])
            sample, rival, gradient, length = (part[~mixes] for part in (sample, rival, gradient, length))
        self._length[sample, rival], self._rest[sample, rival] = length, torch.inf
        self._distance[sample, rival] = self._gaps[sample, rival] / (length + 1e-8)
        self._best, self._nearest = self._distance.min(1)
        self._row[sample, rival] = torch.arange(self._asked, self._asked + len(sample), device=sample.device)
        self._asked += len(sample)
        self._gradients.append(gradient)
        self._reach = torch.maximum(self._reach, self._length.amax(1))
        return gradient, length

    def _mixture(self, sample: Tensor) -> Tensor:
        """Weights (m, C) whose gradient is as long as that of the nearest rival if one that was not asked is as near.

        Unless others cancel it. Three in a row sum to 0, because all gradients share that of the sample's own class,
        which would add up; but no two neighbours do, because classes with alike scores often have alike gradients.
        """
        signs = torch.full_like(self._gaps[0], -1)
        signs[::3] = 2
        rest, nearest = self._rest[sample], self._nearest[sample].unsqueeze(1)
        weights = signs * self._gaps[sample].gather(1, nearest) / rest  # 0 for those that need not be asked
        return torch.cat([-weights.sum(1, keepdim=True), weights], 1)

    def _screen(self, sample: Tensor, length: Tensor) -> None:
        """Lets the samples (m,) ask all their rivals if the mixture's gradient is as long as that of the nearest."""
        nearest = self._nearest[sample].unsqueeze(1)
        short = length < self._length[sample].gather(1, nearest).squeeze(1)
        self._factor[sample[~short]], self._unsure[sample] = torch.inf, False


class Slopes:
    """Gradients at the samples' points, from one forward pass, or from another over fewer samples where that pays."""

    def __init__(self, model: Model, x: Tensor, place: Tensor) -> None:
        self._model, self._x, self._place = model, x, place
        self._graph = _graph(model, x, place)
        self._row = torch.arange(len(place), device=place.device)  # in which a sample lies in the graph
        self._idle = 0  # rows that went through backward passes without need
        self.scores = self._graph.scores.detach()

    def keep(self, index: Tensor) -> None:
        """Forgets the samples but ``index``."""
        self._place, self._row, self.scores = self._place[index], self._row[index], self.scores[index]

    def __call__(self, sample: Tensor, classes: Tensor, weights: Tensor, *, repeated: bool) -> Tensor:
        """Gradients of <weights, scores of classes>, both (m, C), at m samples, in order and perhaps repeated.

        Only those of the last call: who once had nothing to ask is no longer in the graph.
        """
        self._idle += len(self._graph.scores) - len(sample)
        row = self._row[sample]
        if repeated or self._idle >= len(sample):  # as much as a forward pass over these alone
            del self._graph  # before the next is there
            self._graph, self._idle = _graph(self._model, self._x, self._place[sample]), 0
            row = torch.arange(len(sample), device=sample.device)
            self._row[sample] = row  # any of its rows, where a sample is repeated: they are equal
        of_scores = torch.zeros_like(self._graph.scores)
        of_scores[row.unsqueeze(1), classes] = weights.to(of_scores.dtype)
        gradient = self._graph.gradient(of_scores)[0]
        return gradient if len(gradient) == len(row) else gradient[row]  # ascending rows, as many as there are: all


def _graph(model: Model, x: Tensor, index: Tensor) -> ScoreGraph:
    return ScoreGraph(score_function(subset(model, index)), (x[index],))
