"""Large-margin training: a hinge on linearized robustness."""

from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._inputs import TensorOrTuple, check_norm, dual, per_sample_norm
from captum_alignment._core._rivals import check_candidates, linearized_distance
from captum_alignment._core._scores import as_target, gaps, resolve_target
from captum_alignment.training._graph import Graph, Quantity
from captum_alignment.training._penalties import select
from captum_alignment.training._regularizers import Method, Regularizer, check_factor


def margin_penalty(
    scores: Tensor,
    inputs: TensorOrTuple,
    target: Any,
    *,
    margin: float,
    norm: float = 2,
    candidates: int | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """max(0, margin - rho~) of each sample, on the graph that made ``scores`` from ``inputs``.

    rho~ = min over j ≠ t of (Psi^t - Psi^j) / (‖∇ₓ(Psi^t - Psi^j)‖_q + eps) is the linearized robustness of the target,
    negative where the sample is misclassified. The rival is searched with plain gradients; the nearest one alone is
    differentiated twice.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit Psi of class 1, treated as
            (-Psi/2, Psi/2).
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from.
        target: the true class of each sample, as in Captum; None is the predicted class.
        margin: the distance to the linearized boundary up to which a sample is penalised, in units of the input.
        norm: 1, 2 or inf, the norm in which that distance is measured; gradients get its dual.
        candidates: how many rivals of smallest gap are searched, a backward pass each; None is all of them.
        eps: keeps the penalty of a misclassified sample with a vanishing gradient finite.

    Returns:
        (N,) in units of the input, in at least float32.

    Raises:
        TypeError: a tensor of the wrong kind, a margin that is not a number.
        ValueError: a negative margin or eps, an unknown norm, candidates that are not a positive integer, shapes or
            targets that do not fit, scores that do not depend on the inputs.

    Elsayed et al. (2018), at the input layer and with the nearest rival alone; rho~ is Definition 4 of Etmann et al.

    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> scores = torch.nn.Linear(4, 3)(x)
    >>> margin_penalty(scores, x, y, margin=0.5).shape
    torch.Size([8])
    """
    return _hinge(Graph(scores, inputs), target, *_check(margin, norm, candidates, eps))


class LargeMargin(Regularizer):
    """Trains for linearized robustness: weight · mean_i max(0, margin - rho~(x_i)).

    Misclassified samples count with their negative rho~, which is large where the score is flat: begin with a small
    weight, or with a schedule.

    Args:
        weight: at least 0.
        margin: the linearized robustness to reach, in units of the input and of ``norm``.
        norm: 1, 2 or inf, the norm of perturbations.
        candidates: search only this many rivals of smallest gap; None searches all.
        eps: added to the norm of the gradient.
        method, step: as of `Regularizer`.

    Raises:
        TypeError: weight, margin or eps is not a number.
        ValueError: negative numbers, unknown ``norm`` or ``method``, candidates that are not a positive integer.

    Elsayed et al. (2018); see `margin_penalty`.

    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> loss = torch.nn.functional.cross_entropy(model(x), y) + LargeMargin(1.0, margin=0.5)(model, x, y)
    >>> loss.backward()
    """

    name = "large_margin"

    def __init__(
        self,
        weight: float,
        *,
        margin: float,
        norm: float = 2,
        candidates: int | None = None,
        eps: float = 1e-6,
        method: Method = "double-backward",
        step: float = 0.01,
    ):
        super().__init__(weight, method=method, step=step)
        self.margin, self.norm, self.candidates, self.eps = _check(margin, norm, candidates, eps)

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        return _hinge(graph, target, self.margin, self.norm, self.candidates, self.eps)


def _hinge(graph: Graph, target: Any, margin: float, norm: float, candidates: int | None, eps: float) -> Tensor:
    chosen = resolve_target(as_target(target, len(graph.scores)), graph.scores)
    gap = _gap_to(chosen, _nearest_rival(graph, chosen, norm, candidates))
    size = per_sample_norm(graph.gradient(gap), dual(norm)) + eps
    distance = gap(graph.scores)
    # Where the hinge is at rest, neither an infinite gap nor a vanishing gradient may enter the backward pass.
    at_rest = distance.detach() >= margin * size.detach()
    return torch.where(at_rest, 0, margin - distance.masked_fill(at_rest, 0) / size.masked_fill(at_rest, 1))


def _nearest_rival(graph: Graph, target: Tensor, norm: float, candidates: int | None) -> Tensor:
    """The class (N,) whose linearized boundary is nearest to each sample."""
    gap = gaps(graph.scores.detach(), target)
    count = min(candidates or gap.shape[1] - 1, gap.shape[1] - 1)
    order = gap.topk(count, dim=1, largest=False).indices
    if count == 1:
        return order[:, 0]
    distances = []
    for rival in order.T:
        gradient = graph.plain_gradient(_gap_to(target, rival))
        distances.append(linearized_distance(select(gap, rival), per_sample_norm(gradient, dual(norm))))
    return select(order, torch.stack(distances, 1).argmin(1))


def _gap_to(target: Tensor, rival: Tensor) -> Quantity:
    return lambda scores: select(scores, target) - select(scores, rival)


def _check(margin: float, norm: float, candidates: int | None, eps: float) -> tuple[float, float, int | None, float]:
    check_candidates(candidates)
    return check_factor(margin, "margin"), check_norm(norm), candidates, check_factor(eps, "eps")
