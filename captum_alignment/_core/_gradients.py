"""Gradients of scores with respect to inputs, several from one kept forward pass."""

from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._inputs import ForwardFunc, Tensors, as_tensors, check_finite
from captum_alignment._core._scores import check_deterministic, compute_scores


class ScoreGraph:
    """One forward pass whose graph is kept: every further gradient costs one backward pass.

    Works under ``no_grad`` and ``inference_mode`` and on detached leaves, so neither the caller's tensors nor the
    parameters' ``.grad`` are touched.

    Attributes:
        inputs: the detached leaves. scores: (N, K) on their graph. passes: model passes so far, forward and backward.
    """

    def __init__(self, forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            args = for_autograd(additional_forward_args)
            self.inputs = tuple(x.detach().requires_grad_() for x in for_autograd(inputs))
            self.scores = compute_scores(forward_func, self.inputs, args)
        if not self.scores.requires_grad:
            raise ValueError(
                "forward_func: its scores do not depend on the inputs through autograd "
                "(a detach, no_grad or argmax inside?), so they have no gradient"
            )
        self.passes = 1

    def gradient(self, weights: Tensor) -> Tensors:
        """∇_x <weights, scores> (weights (N, K)): one backward pass; samples do not mix."""
        self.passes += 1
        with torch.inference_mode(False):
            found = torch.autograd.grad(
                self.scores, self.inputs, weights.to(self.scores.dtype), retain_graph=True, allow_unused=True
            )
        if all(part is None for part in found):
            raise ValueError("forward_func: its scores do not depend on the inputs, so they have no gradient")
        return tuple(torch.zeros_like(x) if part is None else part for part, x in zip(found, self.inputs, strict=True))

    def one_hot(self, classes: Tensor) -> Tensor:
        """The weights (N, K) that select one class (N,) per sample."""
        return torch.zeros_like(self.scores).scatter_(1, classes.unsqueeze(1), 1)


def for_autograd(value: Any) -> Any:
    """``value``, with clones of the tensors that were made under ``inference_mode``: they can never enter a graph."""
    if isinstance(value, tuple):
        return tuple(map(for_autograd, value))
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def checked_inputs(forward_func: ForwardFunc, inputs: Any) -> Tensors:
    """``inputs`` as a detached tuple, after the checks that every gradient-based quantity needs."""
    tensors = tuple(t.detach() for t in as_tensors(inputs))
    check_finite(tensors, "inputs")
    check_deterministic(forward_func)
    return tensors
