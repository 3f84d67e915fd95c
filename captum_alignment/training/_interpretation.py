"""Interpretation Regularization: input gradients that point where a given saliency map points, and stay small."""

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_alignment._core._inputs import TensorOrTuple, as_tensors, check_same_shapes, per_sample_norm
from captum_alignment.training._graph import Graph
from captum_alignment.training._penalties import Of, check_of, cosine, quantity_of
from captum_alignment.training._regularizers import Method, Regularizer, check_factor

Over: TypeAlias = Literal["sample", "batch"]


def saliency_penalty(
    scores: Tensor,
    inputs: TensorOrTuple,
    target: Any,
    maps: TensorOrTuple,
    *,
    direction: float = 1.0,
    magnitude: float = 0.0,
    magnitude_over: Over = "sample",
    of: Of = "score",
) -> Tensor:
    """direction · (1 - cos(T, g)) + magnitude · ‖g‖ of each sample, g = ∇ₓ q(x), on the graph that made ``scores``.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit Psi of class 1, treated as
            (-Psi/2, Psi/2).
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from.
        target: the class of each sample, as in Captum; None is the predicted class.
        maps: T, signed maps in the shape of the inputs, e.g. of `saliency_targets`. A map of zeros has no direction;
            its cosine is 0.
        direction: λ_dir, at least 0.
        magnitude: λ_mag, at least 0.
        magnitude_over: "sample" is the l_2 norm of each sample's gradient; "batch" is the authors' form, the Frobenius
            norm of the whole batch, given to every sample, so that its mean is their term. It grows with the root of
            the batch size.
        of: q is the target's score ("score"), the cross-entropy ("loss") or the margin ("margin").

    Returns:
        (N,) in at least float32.

    Raises:
        TypeError: a tensor of the wrong kind, weights that are no numbers.
        ValueError: negative weights, maps that do not match the inputs, unknown options, shapes or targets that do not
            fit, scores that do not depend on the inputs.

    Noack, Ahern, Dou & Li (2019), where g is the gradient of the true class's logit.

    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> scores = torch.nn.Linear(4, 3)(x)
    >>> saliency_penalty(scores, x, y, torch.randn(8, 4)).shape
    torch.Size([8])
    """
    return _penalty(Graph(scores, inputs), target, maps, *_check(direction, magnitude, magnitude_over, of))


class InterpretationRegularizer(Regularizer):
    """Input gradients as target maps want them: mean_i λ_dir · (1 - cos(T_i, g_i)) + λ_mag · ‖g_i‖.

    ``regularizer(model, inputs, target, maps)``: the maps are the first of the extras.

    Args:
        direction: λ_dir; the paper has 3 for MNIST and 0.75 for CIFAR-10.
        magnitude: λ_mag; there 0.15 and 0.005, with ``magnitude_over="batch"``.
        magnitude_over: "sample" or "batch".
        of: "score", "loss" or "margin".
        method, step: as of `Regularizer`.

    Raises:
        TypeError: a weight that is not a number; a call without maps.
        ValueError: negative weights, unknown options; in the call, maps that do not match the inputs.

    Noack, Ahern, Dou & Li (2019); see `saliency_penalty`.

    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> maps = torch.randn(8, 4)
    >>> loss = torch.nn.functional.cross_entropy(model(x), y) + InterpretationRegularizer(1.0)(model, x, y, maps)
    >>> loss.backward()
    """

    name = "interpretation"

    def __init__(
        self,
        direction: float,
        magnitude: float = 0.0,
        *,
        magnitude_over: Over = "sample",
        of: Of = "score",
        method: Method = "double-backward",
        step: float = 0.01,
    ):
        self.magnitude_over: Over
        self.of: Of
        self.direction, self.magnitude, self.magnitude_over, self.of = _check(direction, magnitude, magnitude_over, of)
        super().__init__(float(direction > 0 or magnitude > 0), method=method, step=step)

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:
        if not extras:
            raise TypeError("maps: got nothing, expected regularizer(model, inputs, target, maps)")
        return _penalty(graph, target, extras[0], self.direction, self.magnitude, self.magnitude_over, self.of)


def _penalty(
    graph: Graph, target: Any, maps: TensorOrTuple, direction: float, magnitude: float, magnitude_over: Over, of: Of
) -> Tensor:
    maps = as_tensors(maps, "maps")
    check_same_shapes(graph.inputs, maps, "maps")
    gradient = graph.gradient(quantity_of(of, graph.scores, target))
    sizes = per_sample_norm(gradient, 2)
    if magnitude_over == "batch":
        sizes = torch.linalg.vector_norm(sizes).expand(len(sizes))
    wanted = tuple(t.detach().to(g) for t, g in zip(maps, gradient, strict=True))
    return direction * (1 - cosine(wanted, gradient)) + magnitude * sizes


def _check(direction: float, magnitude: float, magnitude_over: Over, of: Of) -> tuple[float, float, Over, Of]:
    if magnitude_over not in get_args(Over):
        raise ValueError(f"magnitude_over: got {magnitude_over!r}, expected 'sample' or 'batch'")
    return check_factor(direction, "direction"), check_factor(magnitude, "magnitude"), magnitude_over, check_of(of)
