"""The nearest of many rivals for a few dozen model passes instead of one per class."""

import math

import torch
from scipy.special import gammaincinv
from torch import Tensor

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import accumulation_dtype, flatten, unflatten
from captum_alignment._core._rivals import NearestRival, concatenate, measure

#: Probability, per sample, that the value returned is not the minimum.
FAILURE = 1e-6
#: Gradients that span the deflated subspace; Gaussian directions of the first look, of each further one, and at most.
_BASIS, _FIRST, _STEP, _MOST = 3, 8, 8, 64
#: With this many classes left, measuring them is cheaper than another look.
_FEW = 16


class SketchSearch:
    """min over j of gap_j / ‖g_j‖, g_j = ∇(Psi^t - Psi^j), for samples whose gaps are all positive.

    Every value is a true ratio; that it is the minimum holds with probability 1 - `FAILURE` per sample:

    1. Backward passes give the gradient of the smallest gap and of a few random mixtures of all margins, the near ones
       weighted most. The mixtures point where most gradients do: their span Q holds most of every ‖g_j‖.
    2. Forward derivatives along Q give the part of every g_j inside the span exactly; derivatives along m Gaussian
       directions give, projected off Q, residual² · chi²_m. A lower quantile of chi²_m turns that into an upper bound
       of all norms at once, and so into a lower bound of all ratios.
    3. The classes whose bound is below the best ratio known are measured exactly, the most promising first. Where many
       are left, further directions sharpen the bounds before.

    In l_inf the norm is ‖g‖_1 <= sqrt(Σs) ‖g/√s‖_2 for any weights s > 0 (Cauchy-Schwarz): the same search for the
    rescaled gradients, with s the mean |gradient| of step 1.
    """

    def __init__(
        self, graph: ScoreGraph, target: Tensor, gap: Tensor, norm: float, generator: torch.Generator | None
    ) -> None:
        self.whole, self.target, self.gap, self.norm = graph, target, gap, norm
        self.dtype = accumulation_dtype(*(x.dtype for x in graph.inputs))
        self.generator = generator or torch.Generator(gap.device).manual_seed(0)
        everyone = torch.arange(len(gap), device=gap.device)
        self.graph, self.held = graph, everyone  # the samples of the current graph, sorted
        self.best = measure(graph, target, gap.argmin(1), gap, norm)
        self.measured = ~gap.isfinite()
        self.measured[everyone, self.best.rival] = True
        self.passes = torch.ones_like(target)
        self.scale, self.basis = self._deflate()
        along = self._derivatives(everyone, self.basis)
        self.along = along  # (n, K, r): the coordinates of every g_j in the basis
        self.inside = along.square().sum(2)
        self.outside = torch.zeros_like(self.inside)  # residual² · chi²_m
        self.looks = torch.zeros_like(target)  # m
        self.failures = self._failure_shares()
        self._look(everyone, _FIRST)

    def run(self) -> NearestRival:
        """Measure and sharpen until no class can be nearer than the best measured one."""
        while True:
            bound, estimate = self._ratios()
            open_ = ~self.measured & (bound < self.best.distance.unsqueeze(1))
            left = open_.sum(1)
            if not left.any():
                return NearestRival(self.best.rival, self.best.gap, self.best.distance, self.best.gradient, self.passes)
            closest = estimate.masked_fill(~open_, torch.inf).min(1)
            worth = (closest.values < self.best.distance) | (left <= _FEW) | (self.looks >= _MOST)
            measuring = ((left > 0) & worth).nonzero().flatten()
            if len(measuring):
                self._measure(measuring, closest.indices[measuring])
            else:
                self._look((left > 0).nonzero().flatten(), _STEP)

    def _deflate(self) -> tuple[Tensor, Tensor]:
        """The coordinate weights √s (n, D) and an orthonormal basis (n, D, r) of rescaled gradients."""
        gradients = [flatten(self.best.gradient, self.dtype)]
        # Without the offset a near tie would be the whole mixture.
        softened = self.gap + self.gap.topk(_FEW, dim=1, largest=False).values.mean(1, keepdim=True)
        for _ in range(_BASIS - 1):
            mixture = self._normal(*self.gap.shape) / softened
            own = self.graph.one_hot(self.target).to(self.dtype)
            weights = own * mixture.sum(1, keepdim=True) - mixture
            weights = weights / weights.abs().amax(1, keepdim=True)  # of order 1, whatever the dtype of the scores
            gradients.append(flatten(self.graph.gradient(weights), self.dtype))
            self.passes += 1
        stack = torch.stack(gradients, 2)
        scale = torch.ones_like(stack[..., 0])
        if math.isinf(self.norm):
            mean = (stack / stack.abs().sum(1, keepdim=True).clamp(min=1e-30)).abs().mean(2)
            # A floor keeps coordinates that these gradients do not see from being weighted 0.
            scale = (mean + 1e-3 * mean.mean(1, keepdim=True) + 1e-30).sqrt()
        # The columns may differ by any factor; QR is indifferent to it, float32 is not.
        stack = stack / scale.unsqueeze(2)
        stack = stack / torch.linalg.vector_norm(stack, dim=1, keepdim=True).clamp(min=1e-30)
        return scale, torch.linalg.qr(stack).Q

    def _failure_shares(self) -> Tensor:
        """Each class' share (n, K) of the failure probability per look, larger for those more likely to be nearest.

        Any shares that were fixed before the Gaussian directions are drawn keep the union bound.
        """
        prior = self.gap / self.inside.sqrt().clamp(min=1e-30)
        rank = prior.argsort(1).argsort(1).to(torch.float64) + 1
        shares = 1 / rank
        most_looks = (_MOST - _FIRST) // _STEP + 1
        return FAILURE / most_looks * shares / shares.sum(1, keepdim=True)

    def _look(self, index: Tensor, count: int) -> None:
        """Sharpen the bounds of the samples ``index`` with ``count`` more Gaussian directions."""
        basis = self.basis[index]
        directions = self._normal(len(index), basis.shape[1], count)
        raw = self._derivatives(index, directions)
        inside = self.along[index] @ (basis.mT @ directions)
        self.outside[index] += (raw - inside).square().sum(2)
        self.looks[index] += count

    def _ratios(self) -> tuple[Tensor, Tensor]:
        """A lower bound of every ratio and an estimate of it, (n, K)."""
        looks = self.looks.unsqueeze(1)
        # chi²_m = 2 · Gamma(m/2); scipy inverts the incomplete gamma function, torch does not.
        quantile = 2 * gammaincinv((looks / 2).cpu().numpy(), self.failures.cpu().numpy())
        quantile = torch.from_numpy(quantile).to(self.gap)
        rounding = 1.01 + 8 * torch.finfo(self.whole.scores.dtype).eps
        bound = self.gap / (rounding * self._norm(self.inside + self.outside / quantile))
        estimate = self._norm(self.inside + self.outside / looks)
        if math.isinf(self.norm):
            # The Cauchy-Schwarz bound is loose by a factor that the best rival's known norm calibrates.
            rival = self.best.rival.unsqueeze(1)
            known = self.best.gap / self.best.distance
            estimate = estimate * (known / estimate.gather(1, rival).squeeze(1)).clamp(max=1).unsqueeze(1)
        return bound.nan_to_num(nan=0.0), (self.gap / estimate).nan_to_num(nan=torch.inf)

    def _norm(self, squared: Tensor) -> Tensor:
        """An upper bound of the dual norm from the squared l_2 norm of the rescaled gradient."""
        factor = self.scale.square().sum(1, keepdim=True) if math.isinf(self.norm) else 1.0
        return (squared * factor).sqrt()

    def _measure(self, index: Tensor, rival: Tensor) -> None:
        """The exact ratio of one class for each sample ``index``; the other samples of the graph are idle."""
        if 2 * len(index) <= len(self.held) or not torch.isin(index, self.held).all():
            self.graph, self.held = self.whole.subset(index), index
            self.passes[index] += 1
        position = torch.searchsorted(self.held, index)
        rivals = self.target[self.held].clone()  # a class against itself: no weight, no gradient
        rivals[position] = rival
        found = measure(self.graph, self.target[self.held], rivals, self.gap[self.held], self.norm)
        closer = self.best.take(index).closer(found.take(position))
        others = torch.isin(torch.arange(len(self.target), device=index.device), index, invert=True).nonzero().flatten()
        self.best = concatenate([self.best.take(others), closer], torch.cat([others, index]).argsort())
        self.measured[index, rival] = True
        self.passes[index] += 1

    def _derivatives(self, index: Tensor, directions: Tensor) -> Tensor:
        """<g_j, v> (n, K, C) of all classes, for directions (n, D, C) in rescaled coordinates."""
        tangents = (directions / self.scale[index].unsqueeze(2)).movedim(2, 0)
        slopes = self.whole.directional(index, unflatten(tangents, self.whole.inputs)).to(self.dtype)
        own = slopes.gather(2, self.target[index].expand(len(slopes), -1).unsqueeze(2))
        self.passes[index] += len(slopes)
        return (own - slopes).movedim(0, 2)

    def _normal(self, *shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=self.generator, device=self.generator.device, dtype=self.dtype)
        return drawn.to(self.gap.device)
