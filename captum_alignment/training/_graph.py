"""Scores on the graph of their inputs, and the input gradients that a penalty is made of."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from captum_alignment._core._failure import reentrant_told
from captum_alignment._core._gradients import graph_nodes
from captum_alignment._core._inputs import (
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    as_tensors,
    per_sample,
    per_sample_norm,
)
from captum_alignment._core._scores import as_scores
from captum_alignment.training._distributed import check_outputs

#: A quantity (N,) of each sample, computed from scores (N, K).
Quantity: TypeAlias = Callable[[Tensor], Tensor]
#: What the sum of the losses was divided by: one number, or one for each sample.
Count: TypeAlias = float | Tensor

#: The nodes that torch puts where a derivative is missing; they raise in the backward pass.
_NO_DERIVATIVE = ("torch::autograd::NotImplemented", "torch::autograd::Error")


class Graph:
    """Scores that were computed from ``inputs``, and the gradients of what is computed from them.

    Attributes:
        scores: (N, K) in at least float32; (N,) and (N, 1), the logit Psi of class 1, have become (-Psi/2, Psi/2).
        inputs: the tensors (N, ...), requiring grad, that the scores were computed from.
        gradients: those taken so far.
    """

    def __init__(self, scores: Tensor, inputs: TensorOrTuple) -> None:
        self.inputs = as_tensors(inputs)
        self.scores = _check_scores(scores, len(self.inputs[0]))
        self.gradients: list[Tensors] = []

    def gradient(self, quantity: Quantity) -> Tensors:
        """∇ₓ quantity(scores) of each sample, which can be differentiated with respect to the parameters."""
        self.gradients.append(self._gradient(quantity))
        return self.gradients[-1]

    def plain_gradient(self, quantity: Quantity) -> Tensors:
        """The same as a value alone, at the cost of one plain backward pass."""
        return differentiate(quantity(self.scores).sum(), self.inputs, "scores", create_graph=False)

    def complete(self, penalties: Tensor) -> Tensor:
        """``penalties`` (N,), made of gradients of this graph, with all of their parameter gradients."""
        return penalties

    def gradient_norm(self) -> Tensor | None:
        """The mean l_2 norm of the gradients taken so far; None if there are none."""
        norms = [per_sample_norm(tuple(g.detach() for g in gradient), 2).mean() for gradient in self.gradients]
        return torch.stack(norms).mean() if norms else None

    def _gradient(self, quantity: Quantity) -> Tensors:
        return differentiate(quantity(self.scores).sum(), self.inputs, "scores")


def differentiate(value: Tensor, inputs: Tensors, name: str, *, create_graph: bool = True) -> Tensors:
    """∂value/∂inputs, by default on a graph that can be differentiated again; 0 for a tensor that is not used."""
    if not all(tensor.requires_grad for tensor in inputs):
        raise ValueError(
            f"inputs: do not require grad, expected the tensors that {name} was computed from, requiring it"
        )
    found = (None,)
    if value.requires_grad:
        if create_graph:
            check_outputs(graph_nodes((value,)))
        with reentrant_told():
            found = torch.autograd.grad(value, inputs, create_graph=create_graph, retain_graph=True, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise ValueError(
            f"{name}: does not depend on the inputs, expected a value computed from these very tensors "
            "without detaching, copying or converting them outside autograd"
        )
    gradients = tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))
    if create_graph:
        _check_twice_differentiable(gradients, name)
    return gradients


def _check_twice_differentiable(gradients: Tensors, name: str) -> None:
    """A `ValueError` before the user's backward pass would meet an operation without a second derivative."""
    for node in graph_nodes(gradients):
        kind = node.name()
        if kind in _NO_DERIVATIVE or kind.startswith("CompiledFunctionBackwardBackward"):
            what = "a compiled function" if kind.startswith("Compiled") else "an operation (hardsigmoid, CTC, …)"
            raise ValueError(
                f"{name}: {what} in its graph has no second derivative in torch; expected method='finite-difference', "
                "which needs none, or another operation"
            )


def loss_gradients(loss: Tensor, inputs: Tensors, *, scale: float = 1.0, count: Count | None = None) -> Tensors:
    """∇ₓ of each sample's own loss, given ``loss`` = ``scale`` times the sum of the N losses / ``count`` (None: N)."""
    gradients = differentiate(loss, inputs, "loss")
    factor = (len(inputs[0]) if count is None else count) / scale
    factors = torch.as_tensor(factor, device=loss.device).detach().expand(len(inputs[0]))
    return tuple(g.to(accumulation_dtype(g.dtype)) * per_sample(factors.to(g.device), g) for g in gradients)


def _check_scores(scores: Tensor, n: int) -> Tensor:
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores: got {type(scores).__name__}, expected a tensor")
    if scores.ndim not in (1, 2) or len(scores) != n or not scores.is_floating_point():
        raise ValueError(
            f"scores: got {scores.dtype} of shape {tuple(scores.shape)} for {n} samples, expected floating ({n}, K)"
        )
    scores = as_scores(scores, n)
    return scores.to(accumulation_dtype(scores.dtype))
