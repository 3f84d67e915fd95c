"""Penalties on input gradients: pure functions on a graph that the caller has built."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_alignment._core._inputs import (
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    as_tensors,
    check_norm,
    dual,
    per_sample_norm,
)
from captum_alignment._core._scores import as_scores, as_target, gaps, resolve_target

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
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is one signed score Psi, treated as
            (Psi/2, -Psi/2), so class 0 is Psi > 0.
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from. A tuple
            counts as one vector per sample.
        target: the class of each sample, as in Captum; None is the predicted class.
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
        ValueError: unknown ``of`` or ``norm``, shapes or targets that do not fit, inputs that do not require grad,
            scores that do not depend on them.

    The squared l_2 form of the loss is the double backpropagation of Drucker & LeCun (1992) and the input gradient
    regularization of Ross & Doshi-Velez (2018). In train mode, batch norm makes the loss of one sample depend on the
    others; the gradient is then that of the sum.
    """
    quantity = _QUANTITIES[check_of(of)]
    check_norm(norm)
    tensors = as_tensors(inputs)
    scores = _check_scores(scores, len(tensors[0]))
    values = quantity(scores, resolve_target(as_target(target, len(scores)), scores))
    return gradient_size(differentiate(values.sum(), tensors, "scores"), norm=norm, squared=squared)


def check_of(of: Of) -> Of:
    """``of`` if it names a quantity, else a `ValueError`."""
    if of not in _QUANTITIES:
        raise ValueError(f"of: got {of!r}, expected one of {', '.join(map(repr, _QUANTITIES))}")
    return of


def gradient_size(gradients: Tensors, *, norm: float, squared: bool) -> Tensor:
    """The norm (N,) of each sample's gradient, dual to the perturbation ``norm``, perhaps squared."""
    sizes = per_sample_norm(gradients, dual(check_norm(norm)))
    return sizes.square() if squared else sizes


def loss_gradients(loss: Tensor, inputs: Tensors, *, scale: float = 1.0) -> Tensors:
    """∇ₓ of each sample's own loss, given ``loss`` = ``scale`` times the mean of the N losses."""
    gradients = differentiate(loss, inputs, "loss")
    factor = len(inputs[0]) / scale
    return tuple(g.to(accumulation_dtype(g.dtype)) * factor for g in gradients)


def differentiate(value: Tensor, inputs: Tensors, name: str) -> Tensors:
    """∂value/∂inputs on a graph that can be differentiated again; 0 for a tensor that ``value`` does not use."""
    if not all(tensor.requires_grad for tensor in inputs):
        raise ValueError(
            f"inputs: do not require grad, expected the tensors that {name} was computed from, requiring it"
        )
    found = (None,)
    if value.requires_grad:
        found = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise ValueError(
            f"{name}: does not depend on the inputs, expected a value computed from these very tensors "
            "without detaching, copying or converting them outside autograd"
        )
    return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))


def _check_scores(scores: Tensor, n: int) -> Tensor:
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores: got {type(scores).__name__}, expected a tensor")
    if scores.ndim not in (1, 2) or len(scores) != n or not scores.is_floating_point():
        raise ValueError(
            f"scores: got {scores.dtype} of shape {tuple(scores.shape)} for {n} samples, expected floating ({n}, K)"
        )
    scores = as_scores(scores, n)
    return scores.to(accumulation_dtype(scores.dtype))


def _loss(scores: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(scores, target, reduction="none")


def _score(scores: Tensor, target: Tensor) -> Tensor:
    return scores.gather(1, target.unsqueeze(1)).squeeze(1)


def _margin(scores: Tensor, target: Tensor) -> Tensor:
    return gaps(scores, target).min(1).values


_QUANTITIES: dict[Of, Callable[[Tensor, Tensor], Tensor]] = {"loss": _loss, "score": _score, "margin": _margin}
