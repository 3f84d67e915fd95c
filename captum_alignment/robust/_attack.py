"""What our Foolbox attacks share: two norms, one criterion, the margin to a rival."""

import math
from abc import abstractmethod
from typing import Any

import eagerpy as ep
import torch
from foolbox import distances
from foolbox.attacks.base import MinimizationAttack, raise_if_kwargs, verify_input_bounds
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function, untargeted_labels
from captum_alignment._core._inputs import per_sample
from captum_alignment._core._scores import invalid

#: Half the last digit of bfloat16, relative to the score: coarse scores often tie.
_TIE = 2.0**-8


class UntargetedAttack(MinimizationAttack):
    """A Foolbox attack in l_2 or l_inf that leaves the label of a `Misclassification` criterion."""

    def __init__(self, *, norm: float) -> None:
        if norm not in (2, math.inf):
            raise ValueError(f"norm: got {norm!r}, expected 2 or inf")
        self.norm = norm

    @property
    def distance(self) -> distances.LpDistance:  # pyright: ignore[reportIncompatibleVariableOverride]
        return distances.l2 if self.norm == 2 else distances.linf

    def run(self, model: Model, inputs: Any, criterion: Any, *, early_stop: float | None = None, **kwargs: Any) -> Any:
        raise_if_kwargs(kwargs)
        packed, restore_type = ep.astensor_(inputs)
        verify_input_bounds(packed, model)
        return restore_type(ep.astensor(self.find(model, packed.raw.detach(), untargeted_labels(criterion))))

    @abstractmethod
    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        """Adversarials for ``x``, or anything of its shape where there are none."""


def margin(model: Model, point: Tensor, labels: Tensor, rival: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether ``point`` is adversarial (N,), by how much its label leads ``rival`` (N,), and the gradient of that."""
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        scores = score_function(model)(point)
        own, other = (scores.gather(1, classes.unsqueeze(1)).squeeze(1) for classes in (labels, rival))
        lead = own - other
        (gradient,) = torch.autograd.grad(lead.sum(), point)
    adversarial, lead = (scores.detach().argmax(1) != labels) & ~invalid(scores), lead.detach().to(point.dtype)
    # A label that wins a tie by its index leads by what the scores cannot resolve; else no step would leave it.
    least = (_TIE * own.detach().abs()).to(point.dtype)
    return adversarial, torch.where(~adversarial & (lead == 0), least, lead), gradient


def nearer(length: Tensor, candidate: Tensor, best: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller of ``length`` and ``best`` (N,), each with its point."""
    wins = length < best
    return torch.where(wins, length, best), torch.where(per_sample(wins, points), candidate, points)
