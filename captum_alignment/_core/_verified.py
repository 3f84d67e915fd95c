"""What an attack claims, checked by running the model."""

import math

import torch
from torch import Tensor

from captum_alignment._core._foolbox import ScoresModel
from captum_alignment._core._inputs import per_sample, per_sample_norm
from captum_alignment._core._scores import invalid

#: Share of the range of the bounds that rounding may leave an adversarial outside of them; it is then clamped.
_OUTSIDE = 1e-6
#: Rounding of a lead in units of the last digit of the scores. On real networks the lead differed by up to 11 between a
#: batch, alone and float64.
_ROUNDING = 64
#: Shares of the perturbation by which a candidate that rounding decides is moved on, until one is sure; large ones are
#: for inputs that tie, of which next to nothing changes the class.
_PUSHES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3)


def unusable(model: ScoresModel, found: Tensor) -> str | None:
    """What is wrong with images that an attack returned, whatever their class; None if nothing is."""
    if not found.isfinite().all():
        return "returned NaN or infinity"
    if not _inside(model, found).all():
        return f"returned images outside the bounds {tuple(model.bounds)}"
    return None


def _inside(model: ScoresModel, found: Tensor) -> Tensor:
    """Whether images are finite and inside the bounds (N,), up to rounding."""
    low, high = model.bounds
    slack = _OUTSIDE * (high - low) if math.isfinite(high - low) else 0.0
    return ((found >= low - slack) & (found <= high + slack) & found.isfinite()).flatten(1).all(1)


def lead_over(scores: Tensor, labels: Tensor) -> Tensor:
    """By how much (N,) the best other class leads the label; negative where the label is ahead."""
    own = scores.gather(1, labels.unsqueeze(1)).squeeze(1)
    return scores.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1) - own


def rounding(scores: Tensor, labels: Tensor) -> Tensor:
    """The lead (N,) that rounding may feign where the two best classes are as large as at the inputs.

    Halves are compared as they are: one digit of theirs is no rounding error but all that they resolve.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        return torch.zeros_like(labels, dtype=torch.float32)
    own = scores.gather(1, labels.unsqueeze(1)).squeeze(1).abs()
    other = scores.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1).abs()
    size = torch.maximum(own, torch.where(other.isfinite(), other, 0))
    return _ROUNDING * torch.finfo(scores.dtype).eps * torch.where(size.isfinite(), size, 0)


def verified(model: ScoresModel, found: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """Candidates as the model sees them, and their distance (N,): inf unless finite, in bounds and of a new class.

    The new class must lead by more than the model's ``rounding``, so that the candidate keeps it in another batch,
    alone, and in float64.
    """
    points, distance, _ = _checked(model, found, labels, norm)
    return points, distance


def _checked(model: ScoresModel, found: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor, Tensor]:
    """What `verified` returns, and whether a candidate fails by rounding alone (N,)."""
    x, (low, high) = model.packed, model.bounds
    inside = _inside(model, found)
    mask = per_sample(inside, x)
    # A rejected candidate may be NaN: the model is asked about the input instead.
    candidates = model.allowed(torch.where(mask, found.clamp(low, high), x).to(x.dtype))
    points = model.pack(model.unpack(candidates))
    with torch.no_grad():
        scores = model.module(points)
    another = inside & (scores.argmax(1) != labels) & ~invalid(scores)
    success = another & (lead_over(scores, labels) > model.rounding)
    distance = per_sample_norm((points - x,), norm)
    return points, torch.where(success, distance, torch.inf), another & ~success


def pushed_outside(model: ScoresModel, found: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """`verified`, after candidates whose class rounding decides were moved on, away from their inputs."""
    points, distance, unsure = _checked(model, found, labels, norm)
    for share in _PUSHES:
        index = unsure.nonzero().flatten()
        if not len(index):
            break
        part = model.subset(index)
        farther = torch.lerp(part.packed, found[index], 1 + share).clamp(*model.bounds)
        points[index], distance[index], _ = _checked(part, farther, labels[index], norm)
        unsure[index] = distance[index].isinf()
    return points, distance
