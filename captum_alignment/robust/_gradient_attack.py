"""The gradient attack of Etmann et al. 2019: one gradient, then a line search."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from captum_alignment._core._foolbox import NO_GRAPH, score_function, subset
from captum_alignment._core._foolbox_names import Model
from captum_alignment._core._inputs import check_count, per_sample
from captum_alignment.robust._attack import UntargetedAttack

#: Halvings of the bracket that the scan found: a thousandth of a step.
_HALVINGS = 10


class GradientAttack(UntargetedAttack):
    """Smallest x + eps·d that changes the prediction, d the direction of the loss gradient at x (one evaluation).

    d is ∇_x CE / ‖∇_x CE‖_2 for ``norm=2`` and its sign for ``norm=inf``, CE the cross-entropy of the label in the
    criterion. eps runs over ``steps`` equal steps up to the largest perturbation that the bounds allow, sqrt(D)·(max -
    min) in l_2: success is not monotone in eps, so the first success of the scan is kept, and only then refined by
    bisection inside its step. A Foolbox attack (Etmann et al. 2019, Section 4; Foolbox 1.8's `GradientAttack`).

    Args:
        norm: 2 or inf.
        steps: number of step sizes to scan.

    Raises:
        ValueError: another norm, no steps; at run time a criterion other than `Misclassification`, infinite bounds.

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = GradientAttack()(model, x, y, epsilons=None)
    >>> adversarials.shape, success.shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(self, *, norm: float = 2, steps: int = 1000) -> None:
        super().__init__(norm=norm)
        self.steps = check_count("steps", steps)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        low, high = model.bounds
        if not math.isfinite(high - low):
            raise ValueError(f"bounds: got {(low, high)}, expected finite bounds (they end the line search)")
        step = (high - low) * (math.sqrt(x[0].numel()) if self.norm == 2 else 1.0) / self.steps
        direction, here = _loss_direction(model, x, labels, self.norm)

        def line(index: Tensor) -> Callable[[Tensor], Tensor]:
            """Whether x + eps·d is adversarial for the samples ``index``, by eps: (n,), or (1,) for all."""
            part, start, along, label = subset(model, index), x[index], direction[index], labels[index]

            @torch.no_grad()
            def is_adversarial(eps: Tensor) -> Tensor:
                return part(_moved(start, eps, along, low, high)).argmax(1) != label

            return is_adversarial

        eps = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        pending = here.nonzero().flatten()
        ahead = line(pending)
        for k in range(1, self.steps + 1):
            if not len(pending):
                break
            hit = ahead(torch.full_like(eps[:1], k * step))
            if hit.any():
                eps[pending[hit]] = k * step
                pending = pending[~hit]
                ahead = line(pending)
        solved = (eps > 0).nonzero().flatten()
        ahead, high_eps, low_eps = line(solved), eps[solved], eps[solved] - step
        for _ in range(_HALVINGS if len(solved) else 0):
            middle = (low_eps + high_eps) / 2
            hit = ahead(middle)
            high_eps, low_eps = torch.where(hit, middle, high_eps), torch.where(hit, low_eps, middle)
        eps[solved] = high_eps
        return _moved(x, eps, direction, low, high)


def _moved(x: Tensor, eps: Tensor, direction: Tensor, low: float, high: float) -> Tensor:
    return (x + per_sample(eps, x) * direction).clamp(low, high)


def _loss_direction(model: Model, x: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """The direction of ∇_x CE, also where the softmax saturates and the loss itself has lost its gradient.

    And whether the label is predicted at x (N,).

    ∇CE = Σ_j p_j (∇Psi^j - ∇Psi^t) over j ≠ t. Normalising the p_j among themselves changes its length only.
    """
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        scores = score_function(model)(leaf)
        own = torch.nn.functional.one_hot(labels, scores.shape[1]).bool()
        weights = scores.detach().masked_fill(own, -torch.inf).softmax(1)
        others = torch.where(weights > 0, weights * scores, 0).sum()  # a class masked by -inf has weight 0
        lead = others - scores[own].sum()
        gradient = torch.autograd.grad(lead, leaf, allow_unused=True)[0] if lead.requires_grad else None
    if gradient is None:
        raise ValueError(NO_GRAPH)
    here = scores.argmax(1) == labels
    if norm != 2:
        return gradient.sign(), here
    length = per_sample(torch.linalg.vector_norm(gradient.flatten(1), dim=1), x)
    return torch.where(length > 0, gradient / length, 0), here
