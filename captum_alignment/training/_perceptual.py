"""Training for perceptually aligned gradients: every class's input gradient points to what that class looks like."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_alignment._core._inputs import TensorOrTuple, Tensors, as_images, as_tensors
from captum_alignment.training._graph import Graph
from captum_alignment.training._penalties import Of, check_of, cosine, quantity_of
from captum_alignment.training._regularizers import Method, Regularizer


def class_gradients_penalty(scores: Tensor, inputs: TensorOrTuple, directions: TensorOrTuple) -> Tensor:
    """1/K Σ_c (1 - cos(∇ₓ Psi^c, g_c)) of each sample, on the graph that made ``scores`` from ``inputs``.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit of the positive class 1, treated as
            two scores.
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from.
        directions: g, what the gradient of each class should point along, tensors (N, K, ...), e.g. from the image
            towards one of class c. A direction of zeros has cosine 0.

    Returns:
        (N,) in [0, 2], in at least float32. It costs K backward passes, each differentiated twice.

    Raises:
        TypeError: a tensor of the wrong kind.
        ValueError: shapes that do not fit, scores that do not depend on the inputs.

    Ganz, Kawar & Elad (2023).

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(8, 1, 4, 4).requires_grad_(), torch.arange(8) % 3
    >>> class_gradients_penalty(model(x), x, torch.rand(8, 3, 1, 4, 4)).shape
    torch.Size([8])
    """
    return _class_gradients(Graph(scores, inputs), as_tensors(directions, "directions"))


class PerceptualAlignment(Regularizer):
    """Aligns the gradient of every class's score with the way to that class: weight · mean_i 1/K Σ_c (1 - cos(·)).

    Args:
        weight: at least 0.
        representatives: r, tensors (K, ...) with one input of each class, e.g. its mean or one image: the direction of
            class c is r_c - x.
        method, step: as of `Regularizer`.

    Raises:
        TypeError: the weight is not a number; representatives of the wrong kind.
        ValueError: a negative weight, an unknown method; in the call, shapes that do not fit.

    Ganz, Kawar & Elad (2023), "class mean" and "one image"; see `class_gradients_penalty`. The target is not used.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(8, 1, 4, 4).requires_grad_(), torch.arange(8) % 3
    >>> PerceptualAlignment(0.1, torch.rand(3, 1, 4, 4))(model, x, y).backward()
    """

    name = "perceptual_alignment"

    def __init__(
        self, weight: float, representatives: TensorOrTuple, *, method: Method = "double-backward", step: float = 0.01
    ):
        super().__init__(weight, method=method, step=step)
        as_tensors(representatives, "representatives")
        self.representatives = representatives

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        targets = as_tensors(self.representatives, "representatives")
        got, expected = [t.shape[1:] for t in targets], [x.shape[1:] for x in graph.inputs]
        if got != expected:
            raise ValueError(
                f"representatives: got one of shape {[tuple(s) for s in got]} for each class, expected that of an "
                f"input, {[tuple(s) for s in expected]}"
            )
        directions = (
            r.to(x).unsqueeze(0) - x.detach().unsqueeze(1) for r, x in zip(targets, graph.inputs, strict=True)
        )
        return _class_gradients(graph, tuple(directions))


def edge_maps(images: Tensor) -> Tensor:
    """The length of each channel's gradient by Sobel's filters, images continued by their border.

    A baseline that knows no network, beside saliency maps (Hooker et al. 2019) or in `InterpretationRegularizer`.

    Args:
        images: (N, C, H, W), floating.

    Returns:
        (N, C, H, W), in the unit of the images.

    Raises:
        TypeError, ValueError: not such a tensor.

    >>> edge_maps(torch.ones(2, 3, 4, 4)).sum()
    tensor(0.)
    """
    images = as_images(as_tensors(images, "images"), "images")
    difference = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([difference, difference.T]).unsqueeze(1)
    channels = F.pad(images.flatten(0, 1).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(channels, kernels).norm(dim=1).reshape(images.shape)


def edge_penalty(scores: Tensor, inputs: TensorOrTuple, target: Any, *, of: Of = "loss") -> Tensor:
    """1 - cos(|g|, E) of each image, g = ∇ₓ q(x), E its `edge_maps`, on the graph that made ``scores`` from ``inputs``.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit of the positive class 1.
        inputs: images (N, C, H, W), requiring grad, that ``scores`` was computed from.
        target: the class of each sample, as in Captum; None is the predicted class.
        of: q is the cross-entropy ("loss"), the target's score ("score") or the margin ("margin").

    Returns:
        (N,) in [0, 1], in at least float32; 1 for an image without edges.

    Raises:
        TypeError: a tensor of the wrong kind.
        ValueError: inputs that are no images, unknown ``of``, targets that do not fit.

    After Rodríguez-Muñoz, Wang & Torralba (2024), who find that gradients which concentrate on edges make a model
    robust; the cosine of magnitudes is this package's form of it. Their other penalty, the l_1 norm of the gradient of
    the loss, is `input_gradient_penalty` with ``norm=inf, squared=False``.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(8, 1, 4, 4).requires_grad_(), torch.arange(8) % 3
    >>> edge_penalty(model(x), x, y).shape
    torch.Size([8])
    """
    return _edges(Graph(scores, inputs), target, check_of(of))


class EdgeAlignment(Regularizer):
    """Input gradients that are large where the image has edges: weight · mean_i (1 - cos(|g_i|, E_i)).

    Args:
        weight: at least 0.
        of: "loss", "score" or "margin".
        method, step: as of `Regularizer`.

    Raises:
        TypeError: the weight is not a number.
        ValueError: a negative weight, unknown ``of`` or ``method``; in the call, inputs that are no images.

    See `edge_penalty`.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(8, 1, 4, 4).requires_grad_(), torch.arange(8) % 3
    >>> EdgeAlignment(0.1)(model, x, y).backward()
    """

    name = "edge_alignment"

    def __init__(self, weight: float, *, of: Of = "loss", method: Method = "double-backward", step: float = 0.01):
        super().__init__(weight, method=method, step=step)
        self.of: Of = check_of(of)

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        return _edges(graph, target, self.of)


def _class_gradients(graph: Graph, directions: Tensors) -> Tensor:
    n, k = graph.scores.shape
    got, expected = [tuple(d.shape) for d in directions], [(n, k, *x.shape[1:]) for x in graph.inputs]
    if got != expected:
        raise ValueError(f"directions: got shapes {got}, expected one for each class of each sample, {expected}")
    cosines = []
    for c in range(k):
        gradient = graph.gradient(lambda z, c=c: z[:, c])
        wanted = tuple(d[:, c].detach().to(g) for d, g in zip(directions, gradient, strict=True))
        cosines.append(cosine(wanted, gradient))
    return 1 - torch.stack(cosines).mean(0)


def _edges(graph: Graph, target: Any, of: Of) -> Tensor:
    images = as_images(graph.inputs).detach()
    gradient = graph.gradient(quantity_of(of, graph.scores, target))
    return 1 - cosine((edge_maps(images).to(gradient[0]),), tuple(g.abs() for g in gradient))
