"""The nearest rival: the class whose linearized decision boundary is closest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import Tensors, dual, per_sample_norm
from captum_alignment._core._scores import gaps


@dataclass(frozen=True)
class NearestRival:
    """Per sample: the minimiser of gap / ‖∇ gap‖_q, its gap, the minimum itself and ∇ gap (shaped like the inputs)."""

    rival: Tensor
    gap: Tensor
    distance: Tensor
    gradient: Tensors


def check_candidates(candidates: int | None) -> None:
    """A `ValueError` unless ``candidates`` is None or a positive integer."""
    if candidates is not None and (isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 1):
        raise ValueError(f"candidates: got {candidates!r}, expected a positive integer or None (all rivals)")


def linearized_distance(gap: Tensor, gradient_norm: Tensor) -> Tensor:
    """gap / ‖∇ gap‖: 0 for a tie even at zero gradient, ±inf for another gap that no step can change."""
    # An infinite gap (a class masked by -inf) has an undefined gradient but is infinitely far whatever its norm.
    return torch.where((gap == 0) | gap.isinf(), gap, gap / gradient_norm)


def nearest_rival(graph: ScoreGraph, target: Tensor, norm: float, candidates: int | None = None) -> NearestRival:
    """Search the rivals of ``target`` (N,) in order of their gap, one backward pass each.

    A NaN gradient makes the sample's distance NaN: it could hide the minimum.
    """
    gap = gaps(graph.scores.detach(), target)
    # NaN sorts after every gap, infinite ones too: the last column is the target itself.
    order = gap.scatter(1, target.unsqueeze(1), torch.nan).argsort(dim=1, stable=True)[:, :-1]
    own = graph.one_hot(target)
    best: NearestRival | None = None
    for rival in order[:, :candidates].unbind(1):
        gradient = graph.gradient(own - graph.one_hot(rival))
        rival_gap = gap.gather(1, rival.unsqueeze(1)).squeeze(1)
        distance = linearized_distance(rival_gap, per_sample_norm(gradient, dual(norm)))
        found = NearestRival(rival, rival_gap, distance, gradient)
        best = found if best is None else _closer(found, best)
    assert best is not None  # K >= 2 and candidates >= 1
    return best


def _closer(new: NearestRival, old: NearestRival) -> NearestRival:
    wins = (new.distance < old.distance) | new.distance.isnan()

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(wins.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return NearestRival(
        choose(new.rival, old.rival),
        choose(new.gap, old.gap),
        choose(new.distance, old.distance),
        tuple(map(choose, new.gradient, old.gradient)),
    )
