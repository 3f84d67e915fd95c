"""The Jacobian of the scores: exact, or through random projections."""

from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._inputs import TensorOrTuple, check_count, per_sample_norm
from captum_alignment._core._random import as_generator, check_generator
from captum_alignment.training._graph import Graph
from captum_alignment.training._regularizers import Method, Regularizer


def jacobian_penalty(
    scores: Tensor, inputs: TensorOrTuple, *, projections: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """½‖J‖_F² of each sample, J = ∂scores/∂x, on the graph that made ``scores`` from ``inputs``.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit Psi of class 1, treated as
            (-Psi/2, Psi/2).
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from.
        projections: None is exact, K backward passes. With an integer n, the unbiased estimate
            K/(2n) Σ ‖∂<v, scores>/∂x‖² over n directions v, uniform on the unit sphere: n backward passes.
        generator: where the directions come from; needed with ``projections``. Keep it from step to step: with a fresh
            one, every step would see the same directions.

    Returns:
        (N,) in squared score units per squared unit of input, in at least float32.

    Raises:
        TypeError: a tensor of the wrong kind.
        ValueError: shapes that do not fit, scores that do not depend on the inputs, projections that are not a positive
            integer or come without a generator.

    Hoffman, Roberts & Yaida (2019).

    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> scores = torch.nn.Linear(4, 3)(x)
    >>> jacobian_penalty(scores, x).shape
    torch.Size([8])
    """
    graph = Graph(scores, inputs)
    check_generator(generator)
    if _check_projections(projections) is not None and generator is None:
        raise ValueError("generator: got None, expected a torch.Generator to keep (random projections differ by step)")
    return _half_square(graph, projections, generator)


class JacobianRegularizer(Regularizer):
    """Penalises the Jacobian of the scores: weight · mean_i ½‖J(x_i)‖_F², through random projections.

    Args:
        weight: at least 0.
        projections: how many random directions estimate the norm, or None for the exact one (K backward passes).
        generator: where the directions come from. None is a private one with a fixed seed that moves on from call to
            call: directions differ from step to step, and a run can be repeated.
        method, step: as of `Regularizer`.

    Raises:
        TypeError: the weight is not a number.
        ValueError: a negative weight, projections that are not a positive integer, an unknown method.

    Hoffman, Roberts & Yaida (2019); see `jacobian_penalty`. The target is not used.

    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> loss = torch.nn.functional.cross_entropy(model(x), y) + JacobianRegularizer(0.01)(model, x, y)
    >>> loss.backward()
    """

    name = "jacobian"

    def __init__(
        self,
        weight: float,
        *,
        projections: int | None = 1,
        generator: torch.Generator | None = None,
        method: Method = "double-backward",
        step: float = 0.01,
    ):
        super().__init__(weight, method=method, step=step)
        self.projections = _check_projections(projections)
        self.generator = as_generator(generator)

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        return _half_square(graph, self.projections, self.generator)


def _half_square(graph: Graph, projections: int | None, generator: torch.Generator | None) -> Tensor:
    _, k = graph.scores.shape
    weights = torch.eye(k).unsqueeze(1) if projections is None else _directions(graph.scores, projections, generator)
    total = torch.zeros(())
    for weight in weights.to(graph.scores):
        total = total + per_sample_norm(graph.gradient(_along(weight)), 2).square()
    return total / 2 if projections is None else total * (k / (2 * projections))


def _along(weight: Tensor) -> Any:
    return lambda scores: (scores * weight).sum(1)


def _directions(scores: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """(n, N, K), each of length 1."""
    device = "cpu" if generator is None else generator.device
    found = torch.randn(n, *scores.shape, dtype=scores.dtype, device=device, generator=generator)
    return found / found.norm(dim=2, keepdim=True)


def _check_projections(projections: int | None) -> int | None:
    if projections is not None:
        check_count("projections", projections, also=" or None (exact)")
    return projections
