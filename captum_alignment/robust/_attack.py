"""What our Foolbox attacks share: two norms, their criterion, the margin to a rival."""

import math
from abc import abstractmethod
from typing import Any

import eagerpy as ep
import torch
from torch import Tensor

from captum_alignment._core._foolbox import NO_GRAPH, ScoresModel, class_to_leave, score_function
from captum_alignment._core._foolbox_names import (
    MinimizationAttack,
    Model,
    distances,
    get_criterion,
    get_is_adversarial,
    raise_if_kwargs,
    verify_input_bounds,
)
from captum_alignment._core._inputs import per_sample
from captum_alignment._core._scores import invalid

#: Scores of these have few digits: they tie.
_HALVES = (torch.float16, torch.bfloat16)
#: Half the last digit of bfloat16, relative to the score: coarse scores often tie.
_TIE = 2.0**-8
#: Shares of the perturbation by which a point of halves is moved on, until it is adversarial.
_STRETCHES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class UntargetedAttack(MinimizationAttack):
    """A Foolbox attack in one of the ``norms`` that leaves the label of a `Misclassification` criterion.

    Inputs that have another class already come back as they are, bit for bit.
    """

    norms: tuple[float, ...] = (2, math.inf)

    def __init__(self, *, norm: float) -> None:
        if norm not in self.norms:
            *others, last = (f"{known:g}" for known in self.norms)
            raise ValueError(f"norm: got {norm!r}, expected {', '.join(others)} or {last}")
        self.norm = norm

    @property
    def distance(self) -> distances.LpDistance:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {1.0: distances.l1, 2.0: distances.l2}.get(self.norm, distances.linf)

    def run(self, model: Model, inputs: Any, criterion: Any, *, early_stop: float | None = None, **kwargs: Any) -> Any:
        raise_if_kwargs(kwargs)
        packed, restore_type = ep.astensor_(inputs)
        if not isinstance(packed.raw, Tensor):
            raise TypeError(f"inputs: got {type(packed.raw).__name__}, expected a torch tensor and a PyTorchModel")
        verify_input_bounds(packed, model)
        x = packed.raw.detach()
        start, dtype = x, model.inputs[0].dtype if isinstance(model, ScoresModel) else x.dtype
        if x.dtype in _HALVES:
            model, start = Rounding(model, x.dtype), x.float()
        found = self.search(model, start, criterion)
        if dtype in _HALVES:
            found = self.rescue(model, start, _past_ties(model, start, found, criterion), criterion, dtype)
        return restore_type(ep.astensor(found.to(x.dtype)))

    def search(self, model: Model, x: Tensor, criterion: Any) -> Tensor:
        """`find` with what the criterion says; attacks that serve others, too, override it."""
        return self.find(model, x, class_to_leave(criterion))

    def rescue(self, model: Model, x: Tensor, found: Tensor, criterion: Any, dtype: torch.dtype) -> Tensor:
        """``found``, with what another attack in the half ``dtype`` finds where it is not adversarial."""
        return found

    @abstractmethod
    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        """Adversarials for ``x``, or anything of its shape where there are none."""


class Rounding(Model):
    """A model of halves for an attack that computes in float32: small steps and squares of halves would vanish."""

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self.inner, self.dtype = model, dtype

    @property
    def bounds(self) -> Any:
        return self.inner.bounds

    def __call__(self, inputs: Any) -> Any:
        packed, restore_type = ep.astensor_(inputs)
        return restore_type(ep.astensor(self.inner(packed.raw.to(self.dtype)).float()))


def _past_ties(model: Model, x: Tensor, found: Tensor, criterion: Any) -> Tensor:
    """``found``, moved on where it is not adversarial: the scores of halves tie along a stretch of the way."""
    asks = get_is_adversarial(get_criterion(criterion), model)
    points, open_ = found, ~asks(ep.astensor(found)).raw
    for share in _STRETCHES:
        if not open_.any():
            break
        farther = torch.lerp(x, found, 1 + share).clamp(*model.bounds)
        success = open_ & asks(ep.astensor(farther)).raw
        points, open_ = torch.where(per_sample(success, x), farther, points), open_ & ~success
    return points


def margin(model: Model, point: Tensor, labels: Tensor | None, rival: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether ``point`` is adversarial (N,), by how much its label leads ``rival`` (N,), and the gradient of that.

    Without ``labels`` only the class ``rival`` itself is adversarial, and the leader is the best other class. Entries
    of a gradient that are not finite (a square root at 0) are 0: the other features may still lead out.
    """
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        scores = score_function(model)(point)
        other = _at(scores, rival)
        own = scores.scatter(1, rival.unsqueeze(1), -torch.inf).amax(1) if labels is None else _at(scores, labels)
        lead = own - other
        gradient = torch.autograd.grad(lead.sum(), point, allow_unused=True)[0] if lead.requires_grad else None
    if gradient is None:
        raise ValueError(NO_GRAPH)
    adversarial = is_adversarial(scores.detach(), labels, rival)
    lead = lead.detach().to(point.dtype)
    # A label that wins a tie by its index leads by what the scores cannot resolve; else no step would leave it.
    least = (_TIE * own.detach().abs()).to(point.dtype)
    gradient = gradient.nan_to_num(0, 0, 0)
    return adversarial, torch.where(~adversarial & (lead == 0), least, lead), gradient


def is_adversarial(scores: Tensor, labels: Tensor | None, rival: Tensor | None) -> Tensor:
    """Whether the scores leave the labels, or reach ``rival`` where there are none (N,)."""
    found = scores.argmax(1)
    return (found != labels if labels is not None else found == rival) & ~invalid(scores)


def nearer(length: Tensor, candidate: Tensor, best: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller of ``length`` and ``best`` (N,), each with its point."""
    wins = length < best
    return torch.where(wins, length, best), torch.where(per_sample(wins, points), candidate, points)


def _at(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes.unsqueeze(1)).squeeze(1)
