"""DeepFool with one forward pass for all rivals of a step."""

from typing import NamedTuple

import torch
from foolbox.models import Model
from torch import Tensor
from torch.nn.functional import pad

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
#: Rows of so many features in all that may go through together even where the caller's batch is smaller.
_ROWS = 256
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
    lengths: Tensor  # (n, C - 1) gradient lengths of the rivals on the present linear piece, inf where unknown
    reach: Tensor  # (n,) the longest gradient seen so far

    def take(self, index: Tensor) -> "_Samples":
        return _Samples(*(part[index] for part in self))


class DeepFool(UntargetedAttack):
    """Steps to the nearest linearized decision boundary until the class changes (Moosavi-Dezfooli et al. 2016).

    The iterates are those of Foolbox's `L2DeepFoolAttack` and `LinfDeepFoolAttack` with the same arguments; the cost is
    not: one forward pass serves all rivals of a step (and others, over the samples that need more gradients, where they
    save backward passes), finished samples leave the batch, and a sample takes no backward pass for rivals that cannot
    be nearest. A rival is skipped where it would be nearest only with a gradient more than twice as long as all that
    the sample has seen; or, while the gradient of the last step's rival comes back unchanged (the sample is still on
    one linear piece of the network), longer than its own there. In the first step, which has seen least, one backward
    pass over a mixture of all skipped rivals looks for a longer gradient; where there may be one, and for inputs of
    fewer than 10,000 features, all are measured. None of this is a bound: a network whose gradients grow
    faster, or hide each other in the mixture, may lead elsewhere. A sample whose gradient is not finite stays where it
    is. No pass takes more rows than the batch, or 256 if that has fewer and they are small (2¹⁷ features in all).

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
        for index in torch.arange(len(x), device=x.device).split(group):
            self._move(model, x, labels, index)
        return x

    def _move(self, model: Model, x: Tensor, labels: Tensor, index: Tensor) -> None:
        """Moves the samples ``index`` of ``x`` in place."""
        together = max(len(index), min(_ROWS, _GROUP_FEATURES // x[0].numel()))
        samples: _Samples | None = None
        for turn in range(self.steps):
            graph = _graph(model, x, index)
            samples = samples or self._begin(x[index], index, graph.scores.detach())
            going = (graph.scores.argmax(1) == labels[index]).nonzero().flatten()
            if len(going) < len(index):
                samples = samples.take(going)
            if not len(going):
                break
            slopes = _Slopes(model, x, samples.place, graph, going)
            samples, distance = _Search(slopes, samples, dual(self.norm), together).nearest(first=not turn)
            samples = self._step(samples, distance)
            finite = (samples.reach + distance).isfinite()
            if not finite.all():  # where a gradient is not finite, a sample stays for good
                samples = samples.take(finite.nonzero().flatten())
            index = samples.place
            if not len(index):
                break
            x[index] = (samples.start + (1 + self.overshoot) * samples.total).clamp(*model.bounds)

    def _begin(self, x: Tensor, index: Tensor, scores: Tensor) -> _Samples:
        classes = scores.argsort(1, descending=True)[:, : self.candidates]
        zeros, unknown = torch.zeros_like(x), x.new_full((len(x), classes.shape[1] - 1), torch.inf)
        return _Samples(index, x, zeros, classes, torch.zeros_like(index), zeros, unknown, x.new_zeros(len(x)))

    def _step(self, samples: _Samples, distance: Tensor) -> _Samples:
        """The samples after a step to the nearest linearized boundary, 1e-4 further as in Foolbox."""
        direction = samples.direction
        if self.norm == 2:
            length = samples.lengths.gather(1, samples.nearest.unsqueeze(1)).squeeze(1)
            step = per_sample((distance + 1e-4) / (length + 1e-8), direction) * direction
        else:
            step = per_sample(distance + 1e-4, direction) * direction.sign()
        return samples._replace(total=samples.total + step)


class _Search:
    """The nearest linearized boundary of every sample at its point, from as few gradients as that takes.

    A sample asks for the gradient of the rival of its last step, then, one by one, for those of rivals that promise to
    be nearer. As soon as all that is still asked fits into ``together`` rows, one pass answers it.
    """

    def __init__(self, slopes: "_Slopes", samples: _Samples, order: float, together: int) -> None:
        self._slopes, self._samples, self._order, self._together = slopes, samples, order, together
        scores = slopes.scores.gather(1, samples.classes)
        self._gaps = (scores[:, :1] - scores[:, 1:]).abs().to(samples.lengths.dtype)
        self._rest = torch.where(
            self._gaps.isfinite(), self._gaps, torch.inf
        )  # not asked yet; masked classes never are
        self._length = torch.zeros_like(self._gaps)  # of those asked
        self._distance = torch.full_like(self._gaps, torch.inf)
        self._direction, self._reach = samples.direction.clone(), samples.reach

    def nearest(self, *, first: bool) -> tuple[_Samples, Tensor]:
        """The samples with the nearest boundary's rival and its gradient, and how far (n,) that boundary is."""
        samples = self._samples
        self._ask(torch.arange(len(samples.place), device=samples.place.device), samples.nearest)
        change = per_sample_norm((self._direction - samples.direction,), self._order).to(self._gaps.dtype)
        same = change <= _SAME * self._length.amax(1)
        limits = torch.where(same.unsqueeze(1), (1 + _SAME) * samples.lengths, torch.inf)
        few = samples.direction[0].numel() < _FEW_FEATURES
        self._ask_promising(limits, torch.inf if first and few else _REACH)
        if first and not few:
            self._ask_promising(limits, self._screened())
        lengths = torch.where(self._length > 0, self._length, limits)
        found = samples._replace(nearest=self._nearest, direction=self._direction, lengths=lengths, reach=self._reach)
        return found, self._best

    def _ask_promising(self, limits: Tensor, factor: Tensor | float) -> None:
        """Asks until no rival would be nearest, with a gradient as long as its limit and factor times the longest."""
        info = torch.finfo(self._reach.dtype)
        while True:
            most = (factor * self._reach.clamp_min(info.tiny)).clamp_max(info.max)
            promise = self._rest / torch.minimum(limits, most.unsqueeze(1))
            sample, rival = (promise < self._best.unsqueeze(1)).nonzero(as_tuple=True)
            if len(sample) > self._together:
                promise, column = promise.min(1)
                sample = (promise < self._best).nonzero().flatten()
                rival = column[sample]
            if not len(sample):
                return
            self._ask(sample, rival)

    def _ask(self, sample: Tensor, rival: Tensor) -> None:
        """Measures the boundaries to the rivals (m,) of the samples (m,), which are in order and may be repeated."""
        weights = self._gaps.new_zeros(len(sample), self._gaps.shape[1] + 1)
        weights.scatter_(1, rival.unsqueeze(1) + 1, 1)[:, 0] = -1
        gradient, length = self._gradient(sample, weights)
        self._length[sample, rival], self._rest[sample, rival] = length, torch.inf
        self._distance[sample, rival] = self._gaps[sample, rival] / (length + 1e-8)
        self._best, self._nearest = self._distance.min(1)
        won = self._nearest[sample] == rival
        self._direction[sample[won]] = gradient[won]
        self._reach = torch.maximum(self._reach, self._length.amax(1))

    def _screened(self) -> Tensor:
        """`_REACH` (n,) for every sample, or inf: it has to ask all, a mixture of them being as long as the nearest."""
        factor = torch.full_like(self._reach, _REACH)
        sample = self._rest.isfinite().any(1).nonzero().flatten()
        if len(sample):
            nearest = self._nearest[sample].unsqueeze(1)
            mixture = _mixture(self._gaps[sample], nearest, self._rest[sample].isfinite())
            short = self._gradient(sample, mixture)[1] < self._length[sample].gather(1, nearest).squeeze(1)
            factor[sample[~short]] = torch.inf
        return factor

    def _gradient(self, sample: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self._slopes(sample, self._samples.classes[sample], weights)
        return gradient, per_sample_norm((gradient,), self._order).to(self._gaps.dtype)


class _Slopes:
    """Gradients at the samples' points, from one forward pass, or from another over fewer samples where that pays."""

    def __init__(self, model: Model, x: Tensor, place: Tensor, graph: ScoreGraph, row: Tensor) -> None:
        self._model, self._x, self._place = model, x, place
        self._graph, self._row = graph, row  # the row of the graph in which a sample lies, or -1
        self._idle = 0  # rows that went through backward passes without need
        self.scores = graph.scores.detach()[row]

    def __call__(self, sample: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Gradients of <weights, scores of classes>, both (m, C), at m samples, which are in order."""
        self._idle += len(self._graph.scores) - len(sample)
        row = self._row[sample]
        once = (pad(row, (1, 0), value=-1).diff() > 0).all()  # every sample has a row of its own
        if not once or self._idle >= len(sample):  # as much as a forward pass over these alone
            self._graph, self._idle = _graph(self._model, self._x, self._place[sample]), 0
            row, self._row = torch.arange(len(sample), device=sample.device), torch.full_like(self._row, -1)
            self._row[sample] = row
        of_scores = torch.zeros_like(self._graph.scores)
        of_scores[row.unsqueeze(1), classes] = weights.to(of_scores.dtype)
        gradient = self._graph.gradient(of_scores)[0]
        return gradient if len(gradient) == len(row) else gradient[row]


def _graph(model: Model, x: Tensor, index: Tensor) -> ScoreGraph:
    return ScoreGraph(score_function(subset(model, index)), (x[index],))


def _mixture(gaps: Tensor, nearest: Tensor, unasked: Tensor) -> Tensor:
    """Weights (n, C) whose gradient is as long as that of the nearest (n, 1) if one unasked rival is as near.

    Unless others cancel it. Three in a row sum to 0, because all gradients share that of the sample's own class, which
    would add up; but no two neighbours do, because classes with alike scores often have alike gradients.
    """
    signs = torch.full_like(gaps[0], -1)
    signs[::3] = 2
    weights = torch.where(unasked, signs * gaps.gather(1, nearest) / gaps, 0)
    return torch.cat([-weights.sum(1, keepdim=True), weights], 1)
