"""Linear relaxation of a piecewise linear network (CROWN) around one sample.

Zhang et al. 2018 (CROWN), Xu et al. 2021 (alpha-CROWN: the lower slopes are optimised). A ReLU of z in [l, u] with
l < 0 < u lies above a·z for every a in [0, 1] and below u (z - l) / (u - l). Going backwards, a positive coefficient
takes the lower line and a negative one the upper line. What is lost at the sample itself is summed up; so
<c, f(x + d)> - <c, f(x)> >= <A, d> - lost, with A the coefficients that arrive at the input.
"""

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


@dataclass
class _Lines:
    """Of one layer of ReLUs: the unstable ones, both slopes, and how far both lines are from the ReLU at x."""

    z: Tensor
    unstable: Tensor
    lower: Tensor
    upper: Tensor
    below: Tensor
    above: Tensor


def _lines(z: Tensor, low: Tensor, high: Tensor) -> _Lines:
    unstable = (low < 0) & (high > 0)
    active = torch.where((low + high).isnan(), torch.nan, (low >= 0).to(z))  # of NaN, nothing is certified
    width = torch.where(unstable, high - low, 1)
    upper = torch.where(unstable, high / width, active)
    lower = torch.where(unstable, (high > -low).to(z), active)
    above = torch.where(unstable, upper * (z - low) - z.relu(), 0).clamp(min=0)
    return _Lines(z, unstable, lower, upper, torch.where(unstable, z.relu() - lower * z, 0), above)


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

    def _size(self, index: int) -> Tensor:
        value = self.values[index]
        return value[value.isfinite()].abs().amax() if value.isfinite().any() else value.new_zeros(())

    def _refined(
        self, index: int, low: Tensor, high: Tensor, eps: float, steps: int, rows: int
    ) -> tuple[Tensor, Tensor]:
        units = ((low < 0) & (high > 0)).flatten().nonzero().flatten()
        if not len(units) or len(units) > _MOST_UNITS:
            return low, high
        z = self.values[index]
        low, high = (part.clone(memory_format=torch.contiguous_format) for part in (low, high))
        margin = ROUNDING * (self._size(index) + (high - low).amax())
        for part in units.split(max(rows // 2, 1)):
            one = z.new_zeros(len(part), z.numel()).scatter_(1, part.unsqueeze(1), 1).reshape(-1, *z.shape)
            least = self.least(index, torch.cat([one, -one]), eps, steps)
            at = z.flatten()[part]
            low.view(-1)[part] = torch.maximum(low.view(-1)[part], at + least[: len(part)] - margin)
            high.view(-1)[part] = torch.minimum(high.view(-1)[part], at - least[len(part) :] + margin)
        return low, high

    def least(self, index: int, coefficients: Tensor, eps: float, steps: int) -> Tensor:
        """A lower bound (R,) of <c, value of node ``index``> - <c, its value at x> for rows c (R, ...)."""
        a, lost = self.linear(index, coefficients, eps, steps)
        return self.ball.least(a, eps) - lost

    def linear(self, index: int, coefficients: Tensor, eps: float, steps: int) -> tuple[Tensor, Tensor]:
        """A (R, D) and what is lost (R,), with lower slopes that are good at ``eps``."""
        a, lost = self._backward(index, coefficients, {})
        below = [i for i in self.network.relus_below(index) if bool(self._lines[i].unstable.any())]
        if not steps or not below:
            return a, lost
        best = self.ball.least(a, eps) - lost
        slopes = {i: self._lines[i].lower.expand(len(a), *self._lines[i].z.shape).clone() for i in below}
        with torch.enable_grad():
            leaves = [slope.requires_grad_() for slope in slopes.values()]
            optimiser = torch.optim.Adam(leaves, lr=_RATE)
            for step in range(steps):
                optimiser.param_groups[0]["lr"] = _RATE * (1 - step / steps)
                new_a, new_lost = self._backward(index, coefficients, slopes)
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
                    for leaf in leaves:
                        leaf.clamp_(0, 1)
        return a, lost

    def _backward(self, index: int, coefficients: Tensor, slopes: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        lost = coefficients.new_zeros(len(coefficients))

        def through(relu: int, g: Tensor) -> Tensor:
            nonlocal lost
            lines = self._lines[relu]
            lower, below = lines.lower, lines.below
            if relu in slopes:
                lower = torch.where(lines.unstable, slopes[relu], lower)
                below = torch.where(lines.unstable, lines.z.relu() - lower * lines.z, 0)
            plus, minus = g.clamp(min=0), g.clamp(max=0)
            lost = lost + (plus * below - minus * lines.above).flatten(1).sum(1)
            return plus * lower + minus * lines.upper

        found = self.network.pull(index, coefficients, through)
        return torch.cat([part.flatten(1) for part in found], 1), lost
