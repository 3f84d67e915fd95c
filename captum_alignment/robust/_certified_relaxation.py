"""Linear relaxation of a piecewise linear network (CROWN) around one sample.

Zhang et al. 2018 (CROWN), Xu et al. 2021 (alpha-CROWN: the lower slopes are optimised). A ReLU of z in [l, u] with
l < 0 < u lies above a·z for every a in [0, 1] and below u (z - l) / (u - l). Going backwards, a positive coefficient
takes the lower line and a negative one the upper line. What is lost at the sample itself is summed up; so
<c, f(x + d)> - <c, f(x)> >= <A, d> - lost, with A the coefficients that arrive at the input.

Where only points matter that a rival claims, <c, f(x + d)> <= 0, a multiple of that may be added to what is bounded
(Kotha et al. 2023, INVPROP), which bounds the units inside better.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_alignment._core._inputs import Tensors, flatten, unflatten
from captum_alignment._core._piecewise import Piecewise
from captum_alignment.robust._certified_ball import Ball

#: Bounds are moved outwards by this share of what was summed, far more than float64 rounds.
ROUNDING = 1e-10
#: Units of one layer whose interval bounds are refined; a layer with more keeps them.
_MOST_UNITS = 4000
_RATE = 0.2
#: Of the multiple of a claim that would lift a bound to its value at the sample: where the ascent starts.
_SHARE = 0.5


@dataclass
class Claim:
    """The points with <c, scores> <= 0, for one row c (1, K) whose value at the sample is at least ``gap`` > 0."""

    c: Tensor
    gap: Tensor


@dataclass
class _Lines:
    """Of one layer of ReLUs: bounds, the unstable ones, both slopes, how far both lines are from the ReLU at x.

    x need not be within the bounds where these are those of a claim: then lines of stable units are off at x too.
    """

    z: Tensor
    low: Tensor
    high: Tensor
    unstable: Tensor
    lower: Tensor
    upper: Tensor
    above: Tensor


def _lines(z: Tensor, low: Tensor, high: Tensor) -> _Lines:
    unstable = (low < 0) & (high > 0)
    active = torch.where((low + high).isnan(), torch.nan, (low >= 0).to(z))  # of NaN, nothing is certified
    width = torch.where(unstable, high - low, 1)
    upper = torch.where(unstable, high / width, active)
    lower = torch.where(unstable, (high > -low).to(z), active)
    above = upper * (z - torch.where(unstable, low, 0)) - z.relu()
    return _Lines(z, low, high, unstable, lower, upper, above)


class Relaxation:
    """Lower bounds of rows of coefficients on the scores, for distances of the caller's choice.

    ``steps`` of gradient ascent optimise the lower slopes, for each row its own; at most ``rows`` rows run at a time.
    """

    def __init__(self, network: Piecewise, x: Tensors, norm: float, bounds: tuple[float, float] | None) -> None:
        self.network = network
        self.x = x
        self.values = network.values(x)
        self.ball = Ball(flatten(x, torch.float64)[0], norm, bounds)
        self._lines: dict[int, _Lines] = {}
        self.work = 0.0  # so far: rows times what they went through, of the bounds of units

    @torch.no_grad()
    def enclose(self, eps: float, steps: int, rows: int) -> None:
        """Bounds of all ReLUs inside the ball of radius ``eps``: of intervals, then of relaxed rows where unstable."""
        self._lines = {}
        low_input, high_input = (unflatten(part[None], self.x) for part in self.ball.box(eps))
        given = {
            i: (x + low, x + high)
            for i, x, low, high in zip(self.network.inputs, self.x, low_input, high_input, strict=True)
        }
        intervals: list[tuple[Tensor, Tensor]] = []
        for i, node in enumerate(self.network.nodes):
            if i in given:
                intervals.append(given[i])
            elif node.affine is None:
                parent = node.parents[0]
                low, high = self._refined(parent, *intervals[parent], eps, steps, rows)
                self._lines[i] = _lines(self.values[parent], low, high)
                intervals.append((low.relu(), high.relu()))
            else:
                parents = [intervals[p] for p in node.parents]
                middle = node.affine(*((low + high) / 2 for low, high in parents))
                radius = node.affine.spread([(high - low) / 2 for low, high in parents])
                radius = radius + ROUNDING * (radius + middle.abs().nan_to_num(posinf=0) + self._size(i))
                intervals.append((middle - radius, middle + radius))

    @torch.no_grad()
    def within(self, claim: Claim, eps: float, steps: int, rows: int) -> "Relaxation | None":
        """The same with bounds for the points of ``claim`` inside the ball alone; None where there is none."""
        result = copy.copy(self)
        result._lines = dict(self._lines)
        for i, lines in self._lines.items():
            parent = self.network.nodes[i].parents[0]
            low, high = result._refined(parent, lines.low, lines.high, eps, steps, rows, claim)
            if bool((low > high).any()):
                return None
            result._lines[i] = _lines(lines.z, low, high)
        return result

    def _size(self, index: int) -> Tensor:
        value = self.values[index]
        return value[value.isfinite()].abs().amax() if value.isfinite().any() else value.new_zeros(())

    def _refined(
        self, index: int, low: Tensor, high: Tensor, eps: float, steps: int, rows: int, claim: Claim | None = None
    ) -> tuple[Tensor, Tensor]:
        units = ((low < 0) & (high > 0)).flatten().nonzero().flatten()
        if not len(units) or len(units) > _MOST_UNITS:
            return low, high
        z = self.values[index]
        self.work += len(units) * sum(self.values[i].numel() for i in self.network.relus_below(index)) * (steps + 1)
        low, high = (part.clone(memory_format=torch.contiguous_format) for part in (low, high))
        margin = ROUNDING * (self._size(index) + (high - low).amax())
        for part in units.split(max(rows // 2, 1)):
            one = z.new_zeros(len(part), z.numel()).scatter_(1, part.unsqueeze(1), 1).reshape(-1, *z.shape)
            least = self.least(index, torch.cat([one, -one]), eps, steps, claim)
            at = z.flatten()[part]
            low.view(-1)[part] = torch.maximum(low.view(-1)[part], at + least[: len(part)] - margin)
            high.view(-1)[part] = torch.minimum(high.view(-1)[part], at - least[len(part) :] + margin)
        return low, high

    def least(self, index: int, coefficients: Tensor, eps: float, steps: int, claim: Claim | None = None) -> Tensor:
        """A lower bound (R,) of <c, value of node ``index``> - <c, its value at x> for rows c (R, ...)."""
        a, lost = self.linear(index, coefficients, eps, steps, claim)
        return self.ball.least(a, eps) - lost

    def linear(
        self, index: int, coefficients: Tensor, eps: float, steps: int, claim: Claim | None = None
    ) -> tuple[Tensor, Tensor]:
        """A (R, D) and lost (R,): <c, value of node ``index``> - <c, its value at x> >= <A, d> - lost for rows c.

        The lower slopes are good at ``eps``. With a ``claim``, for its points only.
        """
        a, lost = self._backward({index: coefficients}, {})
        relus = self.network.relus_below(self.network.output if claim else index)
        below = [i for i in relus if bool(self._lines[i].unstable.any())]
        if not steps or not below:
            return a, lost
        best = self.ball.least(a, eps) - lost
        slopes = {i: self._lines[i].lower.expand(len(a), *self._lines[i].z.shape).clone() for i in below}
        share, scale = torch.full_like(best, _SHARE), best.abs()
        with torch.enable_grad():
            leaves = [leaf.requires_grad_() for leaf in (*slopes.values(), share)]
            optimiser = torch.optim.Adam(leaves, lr=_RATE)
            for step in range(steps):
                optimiser.param_groups[0]["lr"] = _RATE * (1 - step / steps)
                starts, gained = {index: coefficients}, 0
                if claim is not None:
                    gained = share * scale
                    starts[self.network.output] = (gained / claim.gap)[:, None, None] * claim.c
                new_a, new_lost = self._backward(starts, slopes)
                new_lost = new_lost - gained
                value = self.ball.least(new_a, eps) - new_lost
                better = value.detach() > best
                best = torch.where(better, value.detach(), best)
                a = torch.where(better.unsqueeze(1), new_a.detach(), a)
                lost = torch.where(better, new_lost.detach(), lost)
                if step + 1 == steps:
                    break
                gradients = torch.autograd.grad(-value.sum(), leaves, allow_unused=True)
                for leaf, gradient in zip(leaves, gradients, strict=True):
                    leaf.grad = gradient
                optimiser.step()
                with torch.no_grad():
                    for i, slope in slopes.items():  # of a stable unit there is no choice
                        lines = self._lines[i]
                        slope.clamp_(lines.lower * ~lines.unstable, torch.where(lines.unstable, 1, lines.lower))
                    share.clamp_(min=0)
        return a, lost

    def _backward(self, starts: dict[int, Tensor], slopes: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        some = next(iter(starts.values()))
        lost = some.new_zeros(len(some))

        def through(relu: int, g: Tensor) -> Tensor:
            nonlocal lost
            lines = self._lines[relu]
            lower = slopes.get(relu, lines.lower)
            plus, minus = g.clamp(min=0), g.clamp(max=0)
            lost = lost + (plus * (lines.z.relu() - lower * lines.z) - minus * lines.above).flatten(1).sum(1)
            return plus * lower + minus * lines.upper

        found = self.network.pull(starts, through)
        return torch.cat([part.flatten(1) for part in found], 1), lost
