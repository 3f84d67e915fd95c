"""The nearest of many rivals for a few dozen model passes instead of one per class."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.special import gammaincinv
from torch import Tensor

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import Tensors, accumulation_dtype, flatten, unflatten, unit
from captum_alignment._core._random import private_generator
from captum_alignment._core._rivals import NearestRival, measure

#: Probability, per sample, that the value returned is not the minimum.
FAILURE = 1e-6
#: Gaussian directions after each look, and the share of the failure probability that each look may spend. They are
#: fixed beforehand, so that what is seen may decide which looks are taken.
LOOKS = (3, 7, 12, 18, 26)
_SHARES = (0.01, 0.09, 0.2, 0.3, 0.4)
#: Passes by which a search may exceed the plain loop over the rivals.
EXCESS = 5
#: Looks must pay by this many classes more than they cost, even if the residuals are this much larger than estimated.
_PROFIT, _DOUBT = 4, 2.0
#: So many directions the mean residual over the rivals counts as, in the estimate of each.
_PRIOR = 4


class SketchSearch:
    """min over j of gap_j / ‖g_j‖, g_j = ∇(Psi^t - Psi^j), for samples whose gaps are all positive.

    Every value is a true ratio; that it is the minimum holds with probability 1 - `FAILURE` per sample:

    1. The gradient ∇Psi^t spans what most g_j share. One forward derivative along it gives that part of every ‖g_j‖
       exactly; derivatives along m Gaussian directions give, projected off it, residual² · chi²_m.
    2. A lower quantile of chi²_m turns that into an upper bound of each norm. A class whose bound leaves its ratio
       above the best one known is excluded. The result is wrong only if that happens to the minimiser, so the failure
       probability is that of its own chi²_m: there is no union over the classes, whatever their number.
    3. The others are measured exactly, the most promising first, unless more directions promise to exclude more
       classes than they cost. Where they never do, this is the loop over the classes.

    In l_inf the norm is ‖g‖_1 <= sqrt(Σs) ‖g/√s‖_2 for any weights s > 0 (Cauchy-Schwarz): the same search for the
    rescaled gradients, with s the mean |gradient| of the first two gradients.

    Args:
        own: ∇Psi^t where it is known. spent: passes that count as part of the search.
    """

    def __init__(
        self,
        graph: ScoreGraph,
        target: Tensor,
        gap: Tensor,
        norm: float,
        generator: torch.Generator | None = None,
        own: Tensors | None = None,
        spent: int = 0,
    ) -> None:
        self.whole, self.target, self.gap, self.norm = graph, target, gap, norm
        self.dtype = accumulation_dtype(*(x.dtype for x in graph.inputs))
        self.generator = generator or private_generator(gap.device)
        everyone = list(range(len(target)))
        self.graph, self.held = graph, everyone  # the samples of the current graph
        self.passes = [spent + 1 + (own is None)] * len(everyone)
        self.taken = [0] * len(everyone)  # directions drawn so far: one of `LOOKS`
        self.best = measure(graph, target, gap.argmin(1), gap, norm)
        self.rivals = gap.isfinite().sum(1, keepdim=True)
        self.open = gap.isfinite().scatter(1, self.best.rival.unsqueeze(1), False)  # neither measured nor excluded
        own = graph.gradient(graph.one_hot(target)) if own is None else own
        self.scale, self.basis = self._deflate(flatten(own, self.dtype))
        # The basis and the first look share a forward pass, which a derivative along one direction would spend alone.
        first = self._normal(len(target), self.basis.shape[1], LOOKS[0])
        slopes = self._derivatives(everyone, torch.cat([self.basis.unsqueeze(2), first], 2))
        self.along = slopes[:, :, 0]  # (n, K) along the basis
        self.outside = torch.zeros_like(self.along)  # residual² · chi²_m
        self.known = torch.zeros_like(self.along)  # residual² of the classes measured
        self._close(self.best, self._index(everyone))
        self._learn(everyone, first, slopes[:, :, 1:])

    def run(self) -> NearestRival:
        """Measure and sharpen until no class can be nearer than the best measured one."""
        while True:
            self._exclude()
            estimate = self._estimate()
            # The host decides once a round: an accelerator has to be waited for.
            left, most, aims = torch.stack(
                [self.open.sum(1), self.rivals.squeeze(1) + EXCESS, self._plan(estimate)]
            ).tolist()
            unfinished = [i for i, count in enumerate(left) if count]
            if not unfinished:
                return replace(self.best, passes=torch.tensor(self.passes, device=self.target.device))
            spare = min(most[i] - left[i] - self.passes[i] for i in unfinished)
            if 2 * len(unfinished) <= len(self.held) and spare > 0:
                self.graph, self.held = self.whole.subset(self._index(unfinished)), unfinished
                self._count(unfinished, 1)
            for aim in set(aims) - {0}:
                self._look([i for i in unfinished if aims[i] == aim], aim)
            self._measure([i for i in unfinished if not aims[i]], self._ratios(estimate).argmin(1))

    def _deflate(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinate weights √s (n, D) and the direction (n, D) of the target's rescaled gradient."""
        scale = torch.ones_like(own)
        if math.isinf(self.norm):
            seen = torch.stack([own, flatten(self.best.gradient, self.dtype)]).abs()
            mean = (seen / seen.sum(2, keepdim=True).clamp(min=1e-30)).mean(0)
            # A floor keeps coordinates that these gradients do not see from being weighted 0.
            scale = (mean + 0.3 * mean.mean(1, keepdim=True) + 1e-30).sqrt()
        return scale, unit((own / scale,), 2)[0]

    def _exclude(self) -> None:
        """Close the classes whose norm is too small, by its upper bound, to be nearer than the best one."""
        quantile = self._of_looks(_quantiles()).unsqueeze(1)
        rounding = 1.01 + 8 * torch.finfo(self.whole.scores.dtype).eps
        bound = rounding**2 * (self.along.square() + self.outside / quantile)
        self.open &= ~(bound < self._threshold()) & ~self.best.distance.isnan().unsqueeze(1)

    def _threshold(self) -> Tensor:
        """The squared norm (n, K) of the rescaled g_j with which class j would tie with the best one."""
        factor = self.scale.square().sum(1, keepdim=True) if math.isinf(self.norm) else 1.0
        return (self.gap / self.best.distance.unsqueeze(1)).square() / factor

    def _estimate(self) -> Tensor:
        """The residual² (n, K): what the directions say, drawn towards the mean over the rivals."""
        looks = self._of_looks(LOOKS).unsqueeze(1)
        mean = (self.outside * self.gap.isfinite()).sum(1, keepdim=True) / (self.rivals * looks)
        return (self.outside + _PRIOR * mean) / (looks + _PRIOR)

    def _ratios(self, estimate: Tensor) -> Tensor:
        """The estimated ratios (n, K) of the open classes, inf for the others."""
        squared = self.along.square() + estimate
        # In l_inf the bound is loose by a factor that the best rival's known norm calibrates.
        rival = self.best.rival.unsqueeze(1)
        factor = self.best.distance / (self.gap / squared.sqrt()).gather(1, rival).squeeze(1)
        ratio = self.gap / squared.sqrt() * (factor.unsqueeze(1) if math.isinf(self.norm) else 1.0)
        largest = torch.finfo(ratio.dtype).max  # where nothing is known to be finite, an open class is still the first
        return ratio.nan_to_num(nan=largest).clamp(max=largest).masked_fill(~self.open, torch.inf)

    def _plan(self, estimate: Tensor) -> Tensor:
        """The number of directions (n,), one of `LOOKS`, that promises the fewest passes; 0 where it is no more."""
        looks, quantiles = torch.tensor(LOOKS, device=self.gap.device), torch.tensor(_quantiles()).to(self.gap)
        allowed = torch.where(self.open, (self._threshold() - self.along.square()) / estimate, torch.inf)
        ordered = allowed.nan_to_num(nan=0.0).sort(1).values
        # The error of the estimates, by the classes measured: it may be common to all.
        measured = (self.outside * (self.known > 0)).sum(1) / self._of_looks(LOOKS)
        error = (self.known.sum(1) / measured).nan_to_num(nan=1.0).clamp(min=1)

        def staying(error: Tensor) -> Tensor:
            """How many classes (n, looks) will still be open if their residual² is ``error`` times the estimate."""
            return torch.searchsorted(ordered, error.unsqueeze(1) * looks / quantiles, right=True)

        cost = looks - self._of_looks(LOOKS).unsqueeze(1)
        total = torch.where(cost > 0, cost + staying(torch.full_like(error, 1.3)), ordered.shape[1])
        least, chosen = total.min(1)
        left = self.open.sum(1)
        surely = (left.unsqueeze(1) - staying(_DOUBT * error) - cost).gather(1, chosen.unsqueeze(1)).squeeze(1)
        return torch.where((least < left) & (surely >= _PROFIT), looks[chosen], 0)

    def _look(self, samples: list[int], aim: int) -> None:
        """Sharpen the bounds of ``samples`` with as many more Gaussian directions as make ``aim``."""
        for taken in {self.taken[i] for i in samples}:
            group = [i for i in samples if self.taken[i] == taken]
            directions = self._normal(len(group), self.basis.shape[1], aim - taken)
            self._learn(group, directions, self._derivatives(group, directions))

    def _learn(self, samples: list[int], directions: Tensor, slopes: Tensor) -> None:
        """Add the part of ``slopes`` (n, K, C), along Gaussian ``directions`` (n, D, C), that is off the basis."""
        index = self._index(samples)
        inside = self.along[index].unsqueeze(2) * (self.basis[index].unsqueeze(2).mT @ directions)
        self.outside[index] += (slopes - inside).square().sum(2)
        for i in samples:
            self.taken[i] += directions.shape[2]

    def _measure(self, samples: list[int], rival: Tensor) -> None:
        """The exact ratio of the class ``rival`` (N,) for each of ``samples``; the graph's other samples are idle."""
        if not samples:
            return
        held, busy = self._index(self.held), self._index(samples)
        # A class against itself, for the idle ones: no weight, no gradient, infinitely far.
        chosen = self.target.index_copy(0, busy, rival[busy])[held]
        found = measure(self.graph, self.target[held], chosen, self.gap[held], self.norm)
        self.best = self.best.put(held, self.best.take(held).closer(found))
        self._close(found, held)
        self._count(samples, 1)

    def _close(self, found: NearestRival, index: Tensor) -> None:
        """Close the classes that were measured and remember their residuals."""
        rival = found.rival.unsqueeze(1)
        squared = torch.linalg.vector_norm(flatten(found.gradient, self.dtype) / self.scale[index], dim=1).square()
        residual = (squared.unsqueeze(1) - self.along[index].gather(1, rival).square()).clamp(min=0)
        self.open[index] = self.open[index].scatter(1, rival, False)
        self.known[index] = self.known[index].scatter(1, rival, residual.to(self.dtype))

    def _derivatives(self, samples: list[int], directions: Tensor) -> Tensor:
        """<g_j, v> (n, K, C) of all classes, for directions (n, D, C) in rescaled coordinates."""
        index = self._index(samples)
        tangents = (directions / self.scale[index].unsqueeze(2)).movedim(2, 0)
        slopes = self.whole.directional(index, unflatten(tangents, self.whole.inputs)).to(self.dtype)
        own = slopes.gather(2, self.target[index].expand(len(slopes), -1).unsqueeze(2))
        self._count(samples, len(slopes))
        return (own - slopes).movedim(0, 2)

    def _normal(self, *shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=self.generator, device=self.generator.device, dtype=self.dtype)
        return drawn.to(self.gap.device)

    def _index(self, samples: list[int]) -> Tensor:
        return torch.tensor(samples, device=self.gap.device)

    def _of_looks(self, values: Sequence[float]) -> Tensor:
        """What ``values`` has for the directions that each sample (N,) has drawn."""
        chosen = [values[LOOKS.index(taken)] for taken in self.taken]
        return torch.tensor(chosen, device=self.gap.device, dtype=self.dtype)

    def _count(self, samples: list[int], passes: int) -> None:
        for i in samples:
            self.passes[i] += passes


def _quantiles() -> list[float]:
    """For each look the value below which chi²_m falls with that look's share of the failure probability."""
    # chi²_m = 2 · Gamma(m/2); scipy inverts the incomplete gamma function, torch does not.
    return [2 * float(gammaincinv(m / 2, FAILURE * share)) for m, share in zip(LOOKS, _SHARES, strict=True)]
