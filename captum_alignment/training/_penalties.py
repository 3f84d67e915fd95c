"""Penalties on input gradients: pure functions on a graph that the caller has built."""

from typing import Any, Literal, NoReturn, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_alignment._core._inputs import (
    TensorOrTuple,
    Tensors,
    check_norm,
    dual,
    per_sample_dot,
    per_sample_norm,
)
from captum_alignment._core._questions import ask
from captum_alignment._core._scores import are_distributions, as_target, gaps, resolve_target
from captum_alignment.training._graph import Graph, Quantity

Of: TypeAlias = Literal["loss", "score", "margin"]


def input_gradient_penalty(
    scores: Tensor,
    inputs: TensorOrTuple,
    target: Any,
    *,
    of: Of = "loss",
    norm: float = 2,
    squared: bool = True,
) -> Tensor:
    """‖∇ₓ q(x)‖² of each sample, on the graph that made ``scores`` from ``inputs``: no second forward pass.

    The value can be differentiated with respect to the parameters (double backpropagation). It is per sample: the mean
    over a batch, and so the weight that goes with it, does not depend on the batch size.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit Psi of class 1, treated as
            (-Psi/2, Psi/2), so class 1 is Psi > 0.
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from. A tuple
            counts as one vector per sample.
        target: the class of each sample, as in Captum; None is the predicted class. For the loss, probabilities (N, K)
            too, e.g. those of mixup.
        of: q is the cross-entropy ("loss"), the target's score ("score") or the target's score minus the highest
            other score ("margin").
        norm: 1, 2 or inf, the norm in which perturbations of the input are measured, as everywhere in this package.
            The gradient is measured in the dual norm: inf, 2 or 1. So ``norm=inf`` penalises the l_1 norm of the
            gradient, the local Lipschitz constant of q under perturbations that are small in every pixel.
        squared: square the norm.

    Returns:
        (N,) in units of q per unit of input (squared), in at least float32. Its own gradient is 0 where the input
        gradient is 0.

    Raises:
        TypeError: a tensor of the wrong kind.
        ValueError: unknown ``of`` or ``norm``, shapes or targets that do not fit, rows that are no probabilities,
            inputs that do not require grad, scores that do not depend on them.

    The squared l_2 form of the loss is the double backpropagation of Drucker & LeCun (1992) and the input gradient
    regularization of Ross & Doshi-Velez (2018). In train mode, batch norm makes the loss of one sample depend on the
    others; the gradient is then that of the sum.

    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> scores = torch.nn.Linear(4, 3)(x)
    >>> input_gradient_penalty(scores, x, y).shape
    torch.Size([8])
    """
    return gradient_penalty(Graph(scores, inputs), target, of=of, norm=norm, squared=squared)


def gradient_penalty(graph: Graph, target: Any, *, of: Of, norm: float, squared: bool) -> Tensor:
    """`input_gradient_penalty` of a graph."""
    gradient = graph.gradient(quantity_of(check_of(of), graph.scores, target))
    return gradient_size(gradient, norm=norm, squared=squared)


def check_of(of: Of) -> Of:
    """``of`` if it names a quantity, else a `ValueError`."""
    if of not in get_args(Of):
        raise ValueError(f"of: got {of!r}, expected one of {', '.join(map(repr, get_args(Of)))}")
    return of


def gradient_size(gradients: Tensors, *, norm: float, squared: bool) -> Tensor:
    """The norm (N,) of each sample's gradient, dual to the perturbation ``norm``, perhaps squared."""
    sizes = per_sample_norm(gradients, dual(check_norm(norm)))
    return sizes.square() if squared else sizes


def cosine(a: Tensors, b: Tensors, *, norm: float = 2) -> Tensor:
    """<a, b> / (‖a‖_p ‖b‖_q) (N,), q dual to p = ``norm``; 0, with gradient 0, where a or b is 0."""
    sizes = per_sample_norm(a, norm) * per_sample_norm(b, dual(norm))
    return torch.where(sizes > 0, per_sample_dot(a, b) / torch.where(sizes > 0, sizes, 1), 0)


def quantity_of(of: Of, scores: Tensor, target: Any) -> Quantity:
    """The quantity q that ``of`` names, with target and rival as they are at ``scores``."""
    if of == "loss" and isinstance(target, Tensor) and target.is_floating_point() and target.shape == scores.shape:
        return lambda z: soft_cross_entropy(z, target)
    chosen = resolve_target(as_target(target, len(scores)), scores)
    if of == "loss":
        return lambda z: F.cross_entropy(z, chosen, reduction="none")
    if of == "score":
        return lambda z: select(z, chosen)
    rival = gaps(scores.detach(), chosen).argmin(1)
    return lambda z: select(z, chosen) - select(z, rival)


def soft_cross_entropy(scores: Tensor, probabilities: Tensor) -> Tensor:
    """-Σ_k p_k log softmax(scores)_k (N,), where a class that is masked by -inf and has p_k = 0 adds nothing.

    Raises:
        ValueError: rows that are no probabilities, such as the labels of several classes at once.
    """
    p = probabilities.to(scores)
    fits = are_distributions(p)

    def refuse() -> NoReturn:
        row = int((~fits).nonzero()[0])
        raise ValueError(
            f"target: row {row} is {p[row].tolist()}, expected probabilities, which are not negative and sum to 1"
        )

    ask((~fits.all(), refuse))
    return -(p * scores.log_softmax(1).masked_fill(p == 0, 0)).sum(1)


def select(scores: Tensor, classes: Tensor) -> Tensor:
    """Each sample's score (N,) of its class (N,)."""
    return scores.gather(1, classes.unsqueeze(1)).squeeze(1)
