"""The least change that a linear function can suffer inside a ball, or inside the part of a ball between bounds."""

import math

import torch
from torch import Tensor

from captum_alignment._core._inputs import dual

#: Updates of the multiplier; every one of them gives a valid bound.
_UPDATES = 3


class Ball:
    """{x + d : ‖d‖_p <= eps, and x + d within ``bounds`` where there are any}, for one flat sample x (D,)."""

    def __init__(self, x: Tensor, norm: float, bounds: tuple[float, float] | None) -> None:
        self._norm, self._bounded = norm, bounds is not None
        low, high = bounds or (-math.inf, math.inf)
        self._low, self._high = (low - x).clamp(max=0), (high - x).clamp(min=0)

    def reach(self) -> float:
        """The distance beyond which the ball grows no more."""
        return float(torch.linalg.vector_norm(torch.maximum(-self._low, self._high), self._norm)) * (1 + 1e-9)

    def box(self, eps: float) -> tuple[Tensor, Tensor]:
        """The least and the largest d of every feature."""
        return self._low.clamp(min=-eps), self._high.clamp(max=eps)

    def least(self, a: Tensor, eps: float) -> Tensor:
        """A lower bound (R,) of <a, d> over the ball, exact or nearly so, for rows ``a`` (R, D)."""
        if not self._bounded:
            return -eps * torch.linalg.vector_norm(a, dual(self._norm), dim=1)
        if math.isinf(self._norm):
            low, high = self.box(eps)
            return a.clamp(min=0) @ low + a.clamp(max=0) @ high
        return self._least_l1(a, eps) if self._norm == 1 else self._least_l2(a, eps)

    def _least_l1(self, a: Tensor, eps: float) -> Tensor:
        """The budget goes to the steepest features first, to each as far as its bound."""
        room = torch.where(a > 0, -self._low, self._high)
        steep, order = a.abs().sort(dim=1, descending=True)
        room = room.gather(1, order)
        spent = (eps - (room.cumsum(1) - room)).clamp(min=0)
        return -(steep * torch.minimum(spent, room)).sum(1)

    def _least_l2(self, a: Tensor, eps: float) -> Tensor:
        """Lagrange: for any l > 0, Σ min_d (a·d + l d²/2) - l eps²/2 with d within its bounds is a lower bound."""
        movable = torch.where(a > 0, self._low < 0, self._high > 0)
        size = torch.linalg.vector_norm(a * movable, dim=1)
        best = -eps * size
        multiplier = (size.detach() / eps).clamp(min=1e-30).unsqueeze(1)
        for _ in range(_UPDATES):
            d = (-a.detach() / multiplier).clamp(self._low, self._high)
            value = (a * d + multiplier / 2 * d.square()).sum(1) - multiplier.squeeze(1) * eps**2 / 2
            best = torch.maximum(best, value)
            free = (d > self._low) & (d < self._high)
            left = (eps**2 - (d.square() * ~free).sum(1)).clamp(min=1e-12 * eps**2)
            size = torch.linalg.vector_norm(a.detach() * free, dim=1)
            multiplier = (size / left.sqrt()).clamp(min=1e-30).unsqueeze(1)
        return best
