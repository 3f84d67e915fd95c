"""Rivals of a class, the exact linearized distance to each, and the plain search over them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import Tensors, check_count, dual, join, per_sample, per_sample_norm


@dataclass(frozen=True)
class NearestRival:
    """Per sample: the minimiser of gap / ‖∇ gap‖_q, its gap, the minimum itself, ∇ gap, and the passes it took."""

    rival: Tensor
    gap: Tensor
    distance: Tensor
    gradient: Tensors
    passes: Tensor

    def where(self, mask: Tensor, other: "NearestRival") -> "NearestRival":
        """``self`` where ``mask`` (N,), else ``other``."""

        def choose(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(per_sample(mask, a), a, b)

        columns = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        gradient = tuple(map(choose, *columns.pop("gradient")))
        return NearestRival(gradient=gradient, **{name: choose(*pair) for name, pair in columns.items()})

    def take(self, index: Tensor) -> "NearestRival":
        """The samples ``index`` (a mask or positions)."""
        return concatenate([self], index)

    def put(self, index: Tensor, other: "NearestRival") -> "NearestRival":
        """``self`` with ``other`` at the positions ``index``."""
        columns = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        gradient = tuple(a.index_copy(0, index, b) for a, b in zip(*columns.pop("gradient"), strict=True))
        return NearestRival(gradient=gradient, **{k: a.index_copy(0, index, b) for k, (a, b) in columns.items()})

    def closer(self, other: "NearestRival") -> "NearestRival":
        """The nearer of two per sample; a NaN distance wins, because it could hide the minimum."""
        return other.where((other.distance < self.distance) | other.distance.isnan(), self)


def concatenate(parts: list[NearestRival], order: Tensor | None = None) -> NearestRival:
    """The samples of all ``parts``, brought into ``order``: sample i of the result is sample order[i] of the parts."""
    index = slice(None) if order is None else order
    columns: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])[index]
        for f in fields(parts[0])
        if f.name != "gradient"
    }
    return NearestRival(gradient=tuple(g[index] for g in join([part.gradient for part in parts])), **columns)


def check_candidates(candidates: int | None) -> None:
    """A `ValueError` unless ``candidates`` is None or a positive integer."""
    if candidates is not None:
        check_count("candidates", candidates, also=" or None (all rivals)")


def linearized_distance(gap: Tensor, gradient_norm: Tensor) -> Tensor:
    """gap / ‖∇ gap‖: 0 for a tie even at zero gradient, ±inf for another gap that no step can change."""
    # An infinite gap (a class masked by -inf) has an undefined gradient but is infinitely far whatever its norm.
    return torch.where(is_open(gap), gap / gradient_norm, gap)


def is_open(gap: Tensor) -> Tensor:
    """Where the distance to a rival hangs on the gradient: neither at a tie nor where the rival is masked."""
    return (gap != 0) & ~gap.isinf()


def measure(graph: ScoreGraph, target: Tensor, rival: Tensor, gap: Tensor, norm: float) -> NearestRival:
    """The exact linearized distance to one rival (N,) per sample: one backward pass. ``gap`` is (N, K)."""
    gradient = graph.gradient(graph.one_hot(target) - graph.one_hot(rival))
    own_gap = gap.gather(1, rival.unsqueeze(1)).squeeze(1)
    distance = linearized_distance(own_gap, per_sample_norm(gradient, dual(norm)))
    return NearestRival(rival, own_gap, distance, gradient, torch.ones_like(rival))


def loop(graph: ScoreGraph, target: Tensor, gap: Tensor, norm: float, counts: Sequence[int]) -> NearestRival:
    """The minimum over the ``counts`` (N,) >= 1 smallest gaps; samples with fewer leave as the others go on.

    The counts are the host's, so that an accelerator never waits for a decision.
    """

    def positions(chosen: list[int]) -> Tensor:
        return torch.tensor(chosen, device=target.device)

    # NaN sorts after every gap, infinite ones too: the last column is the target itself.
    order = gap.scatter(1, target.unsqueeze(1), torch.nan).argsort(dim=1, stable=True)
    best = measure(graph, target, order[:, 0], gap, norm)
    passes = [1] * len(counts)
    current, held = graph, list(range(len(counts)))
    here = positions(held)
    for k in range(1, max(counts)):
        going = [i for i in held if counts[i] > k]
        if 2 * len(going) <= len(held):
            held, here = going, positions(going)
            current = graph.subset(here)
            passes = [p + (counts[i] > k) for i, p in enumerate(passes)]
        # A class against itself, for those that have finished: no weight, no gradient, infinitely far.
        rival = order[:, k]
        if len(going) < len(held):
            going_here = torch.tensor([c > k for c in counts], device=target.device)
            rival = torch.where(going_here, rival, target)
        whole = len(held) == len(counts)
        found = measure(current, target[here], rival[here], gap[here], norm)
        best = best.closer(found) if whole else best.put(here, best.take(here).closer(found))
        passes = [p + (counts[i] > k) for i, p in enumerate(passes)]
    return replace(best, passes=torch.tensor(passes, device=target.device))
