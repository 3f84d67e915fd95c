"""Training for alignment: input gradients that point along the input."""

from typing import Any

from torch import Tensor

from captum_alignment._core._inputs import TensorOrTuple, check_norm
from captum_alignment.training._graph import Graph
from captum_alignment.training._penalties import Of, check_of, cosine, quantity_of
from captum_alignment.training._regularizers import Method, Regularizer


def alignment_penalty(
    scores: Tensor, inputs: TensorOrTuple, target: Any, *, of: Of = "score", norm: float = 2
) -> Tensor:
    """1 - |<x, g>| / (‖x‖_p ‖g‖_q) of each sample, g = ∇ₓ q(x), on the graph that made ``scores`` from ``inputs``.

    The quotient is the normalised alignment: of the score, `alignment` with ``normalize=True``; of the margin, the
    binarized alignment with the runner-up as the rival, divided by ‖x‖. It depends on how the inputs were normalised.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit Psi of class 1, treated as
            (-Psi/2, Psi/2).
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from.
        target: the class of each sample, as in Captum; None is the predicted class.
        of: q is the target's score ("score"), the cross-entropy ("loss") or the margin to the runner-up ("margin").
        norm: p, 1, 2 or inf, the norm of perturbations and of x; q is its dual.

    Returns:
        (N,) in [0, 1], without unit, in at least float32; 1 where x or g is 0.

    Raises:
        TypeError: a tensor of the wrong kind.
        ValueError: unknown ``of`` or ``norm``, shapes or targets that do not fit, scores that do not depend on the
            inputs.

    Alignment is Definition 2 and 3 of Etmann et al. (2019).

    >>> import torch
    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> scores = torch.nn.Linear(4, 3)(x)
    >>> alignment_penalty(scores, x, y).shape
    torch.Size([8])
    """
    return _penalty(Graph(scores, inputs), target, check_of(of), check_norm(norm))


class AlignmentRegularizer(Regularizer):
    """Penalises input gradients that do not point along the input: weight · mean_i (1 - |cos(x_i, g_i)|).

    Args:
        weight: at least 0.
        of: "score", "loss" or "margin".
        norm: 1, 2 or inf, the norm of perturbations.
        method, step: as of `Regularizer`.

    Raises:
        TypeError: the weight is not a number.
        ValueError: a negative weight, unknown ``of``, ``norm`` or ``method``.

    See `alignment_penalty`.

    >>> import torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> loss = torch.nn.functional.cross_entropy(model(x), y) + AlignmentRegularizer(0.1)(model, x, y)
    >>> loss.backward()
    """

    name = "alignment"

    def __init__(
        self,
        weight: float,
        *,
        of: Of = "score",
        norm: float = 2,
        method: Method = "double-backward",
        step: float = 0.01,
    ):
        super().__init__(weight, method=method, step=step)
        self.of: Of = check_of(of)
        self.norm = check_norm(norm)

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        return _penalty(graph, target, self.of, self.norm)


def _penalty(graph: Graph, target: Any, of: Of, norm: float) -> Tensor:
    gradient = graph.gradient(quantity_of(of, graph.scores, target))
    fixed = tuple(x.detach() for x in graph.inputs)
    return 1 - cosine(fixed, gradient, norm=norm).abs()
