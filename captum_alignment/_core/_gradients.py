"""Gradients of scores with respect to inputs, several from one kept forward pass, and directional derivatives."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._arguments import check_arguments
from captum_alignment._core._failure import check_callable, reentrant_told
from captum_alignment._core._inputs import (
    ForwardFunc,
    Tensors,
    as_tensors,
    batches,
    check_count,
    check_finite,
    per_sample_norm,
    take,
)
from captum_alignment._core._model import is_quantised, no_gradient, plain_attention
from captum_alignment._core._repeatable import check_repeatable
from captum_alignment._core._scores import as_scores, run_output, run_scores

#: Directions that share one forward pass: more would save little and hold more memory.
_CHUNK = 16


class NoDerivative(RuntimeError):
    """Some operation of a model has neither a forward-mode nor a second derivative."""


class ScoreGraph:
    """One forward pass whose graph is kept: every further gradient costs one backward pass.

    Works under ``no_grad`` and ``inference_mode`` and on detached leaves, so neither the caller's tensors nor the
    parameters' ``.grad`` are touched.

    Attributes:
        inputs: the detached leaves. output: what the model returned. scores: it as (N, K), on their graph.
    """

    def __init__(self, forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> None:
        self._forward_func = forward_func
        self._forward_mode = True
        with torch.inference_mode(False), torch.enable_grad():
            self._args = for_autograd(additional_forward_args)
            self.inputs = tuple(x.detach().requires_grad_() for x in for_autograd(inputs))
            self.output = run_output(forward_func, self.inputs, self._args)
            self.scores = as_scores(self.output, len(self.inputs[0]))
        if not self.scores.requires_grad:
            raise ValueError(no_gradient(forward_func))

    def check_repeatable(self) -> None:
        """A `ValueError` if the scores of a sample depend on chance or on the others, or are quantised."""
        if is_quantised(self._forward_func):  # torch warns, and goes on with a gradient of 0
            raise ValueError(no_gradient(self._forward_func))

        def run(x: Tensors, args: Any) -> Tensor:
            return run_scores(self._forward_func, x, args)

        x, whole = tuple(t.detach() for t in self.inputs), self.scores.detach()
        check_repeatable(run, x, self._args, model=self._forward_func, whole=whole)

    def subset(self, index: Tensor) -> "ScoreGraph":
        """The graph of the samples ``index`` alone: one forward pass over them."""
        return ScoreGraph(self._forward_func, *self._take(index))

    def gradient(self, weights: Tensor) -> Tensors:
        """∇_x <weights, scores> (weights (N, K)): one backward pass; samples do not mix."""
        weights = weights.to(self.scores.dtype)
        with torch.inference_mode(False), reentrant_told():
            found = torch.autograd.grad(self.scores, self.inputs, weights, retain_graph=True, allow_unused=True)
        if all(part is None for part in found):
            raise ValueError("forward_func: its scores do not depend on the inputs, so they have no gradient")
        return tuple(torch.zeros_like(x) if part is None else part for part, x in zip(found, self.inputs, strict=True))

    def directional(self, index: Tensor, directions: Tensors) -> Tensor:
        """d scores / d direction (C, n, K) of the n samples ``index``, for C directions (C, n, ...): C passes.

        Forward-mode AD with several directions on one forward pass; where an operation lacks it, the derivative of the
        backward pass instead. A model that allows neither raises `NoDerivative`, with what autograd says.
        """
        inputs, args = self._take(index)
        with plain_attention():
            if self._forward_mode:
                try:
                    return self._forward_derivative(inputs, args, directions)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:  # also NotImplementedError: no such formula, or control flow by the data
                    self._forward_mode = False
            try:
                return self._double_backward_derivative(inputs, args, directions)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise NoDerivative(str(error)) from error

    def one_hot(self, classes: Tensor) -> Tensor:
        """The weights (N, K) that select one class (N,) per sample."""
        return torch.zeros_like(self.scores).scatter_(1, classes.unsqueeze(1), 1)

    def _take(self, index: Tensor) -> tuple[Tensors, Any]:
        n = len(self.scores)
        return tuple(x.detach()[index] for x in self.inputs), take(self._args, index, n)

    def _forward_derivative(self, inputs: Tensors, args: Any, directions: Tensors) -> Tensor:
        def scores(*x: Tensor) -> Tensor:
            return run_scores(self._forward_func, x, args)

        def derivative(*direction: Tensor) -> Tensor:
            return torch.func.jvp(scores, inputs, direction)[1]

        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            # The first call makes torch compile its own formulas, with a function that it has deprecated.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            return torch.func.vmap(derivative, chunk_size=_CHUNK)(*directions)

    def _double_backward_derivative(self, inputs: Tensors, args: Any, directions: Tensors) -> Tensor:
        graph = ScoreGraph(self._forward_func, inputs, args)
        with torch.inference_mode(False), torch.enable_grad():
            # The gradient is linear in its weights u; its derivative in u along v is the derivative of scores along v.
            u = torch.zeros_like(graph.scores, requires_grad=True)
            found = torch.autograd.grad(graph.scores, graph.inputs, u, create_graph=True, allow_unused=True)
            used = [(g, v) for g, v in zip(found, directions, strict=True) if g is not None]
            rows = [
                torch.autograd.grad([g for g, _ in used], u, [v[c] for _, v in used], retain_graph=True)[0]
                for c in range(len(directions[0]))
            ]
        return torch.stack(rows)


def graphs(
    forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any, size: int | None, *per_sample: Any
) -> Iterator[tuple[Any, ...]]:
    """(ScoreGraph, …) of one batch of at most ``size`` samples after the other, cut as by `batches`.

    The first shows whether the model is repeatable.
    """
    parts = batches(size, inputs, additional_forward_args, *per_sample)
    for i, (x, args, *rest) in enumerate(parts):
        graph = ScoreGraph(forward_func, x, args)
        if i == 0:
            graph.check_repeatable()
        yield (graph, *rest)


def for_autograd(value: Any) -> Any:
    """``value``, with clones of the tensors that were made under ``inference_mode``: they can never enter a graph."""
    if isinstance(value, tuple):
        return tuple(map(for_autograd, value))
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def checked_inputs(
    forward_func: ForwardFunc,
    inputs: Any,
    additional_forward_args: Any = None,
    size: int | None = None,
    *,
    integers: bool = False,
) -> Tensors:
    """`valid_inputs`, of a model whose scores are repeatable; ``size`` as in `check_repeatable`."""
    check_callable(forward_func)
    tensors = valid_inputs(inputs, additional_forward_args, integers=integers)
    if size is not None:
        check_count("internal_batch_size", size, also=" or None")

    def run(x: Tensors, args: Any) -> Tensor:
        return run_scores(forward_func, x, args)

    check_repeatable(run, tensors, additional_forward_args, model=forward_func, size=size)
    return tensors


def valid_inputs(inputs: Any, additional_forward_args: Any, *, integers: bool = False) -> Tensors:
    """``inputs`` as a detached tuple, after the checks that all quantities need; ``integers`` do without gradients."""
    tensors = tuple(t.detach() for t in as_tensors(inputs, integers=integers))
    check_finite(tensors, "inputs")
    check_arguments(additional_forward_args, len(tensors[0]))
    return tensors


def warn_of_flat(*gradients: tuple[Tensors, str, Tensor | None]) -> None:
    """A warning that counts and locates the samples whose gradient is 0 or NaN: no sign of robustness.

    With each gradient comes what becomes of such samples, and where (N,) it counts; None is everywhere.
    """
    sizes = [per_sample_norm(gradient, torch.inf) for gradient, _, _ in gradients]
    sizes = [
        s if counted is None else torch.where(counted, s, 1)
        for s, (_, _, counted) in zip(sizes, gradients, strict=True)
    ]
    whole = torch.stack(sizes)
    if bool(((whole > 0) & whole.isfinite()).all()):
        return
    for size, (_, what, _) in zip(sizes, gradients, strict=True):
        for mask, kind in ((size == 0, "zero"), (~size.isfinite(), "not finite")):
            rows = mask.nonzero().flatten().tolist()
            if rows:
                where = f"for {len(rows)} of {len(mask)} samples (the first at index {rows[0]})"
                warnings.warn(
                    f"inputs: the gradient is {kind} {where}: {what}, which is no sign of robustness "
                    "(rounding, saturation or a root at 0 inside the model?)",
                    UserWarning,
                    stacklevel=3,
                )


def graph_nodes(tensors: Tensors) -> list[Any]:
    """Every node of the graph behind ``tensors``: a millisecond for two thousand of them."""
    found: dict[Any, None] = {}
    left = [tensor.grad_fn for tensor in tensors]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found[node] = None
            left.extend(following for following, _ in node.next_functions)
    return list(found)
