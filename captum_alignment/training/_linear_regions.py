"""Maximal linear regions: hinges on the distances to the kinks around an input and to its decision boundaries."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_alignment._core._inputs import TensorOrTuple, Tensors, check_count, check_norm, dual, per_sample_norm
from captum_alignment._core._scores import as_target, gaps, resolve_target
from captum_alignment.training._forward import kept_buffers, scores_of, twice_differentiable
from captum_alignment.training._graph import Graph, differentiate
from captum_alignment.training._penalties import select
from captum_alignment.training._regularizers import Regularizer, check_factor

#: What has its kink at 0.
_KINKED = {
    F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.leaky_relu, F.leaky_relu_, F.prelu, Tensor.prelu,
    torch.prelu,
}  # fmt: skip


class KinkedUnits(TorchFunctionMode):
    """Records the pre-activations (N, ...) of every (leaky, parametric) ReLU that runs inside, module or function.

    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> with KinkedUnits() as units:
    ...     scores = net(torch.rand(5, 4))
    >>> [tuple(z.shape) for z in units.found]
    [(5, 8)]
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _KINKED:
            self.found.append(args[0].clone())  # the activation may write over it
            args = (self.found[-1].clone(), *args[1:])
        return func(*args, **(kwargs or {}))


def linear_region_penalty(
    scores: Tensor,
    inputs: TensorOrTuple,
    target: Any,
    units: Any,
    *,
    region: float,
    margin: float,
    nearest: int = 10,
    candidates: int | None = None,
    norm: float = 2,
) -> Tensor:
    """1/k Σ max(0, 1 - d_j/γ_B) + 1/(K-1) Σ max(0, 1 - d_s/γ_D) of each sample, on the graph that made ``scores``.

    d_j = |z_j| / ‖∇ₓ z_j‖_q is the distance to the kink of a ReLU with pre-activation z_j, as far as the network is
    affine, over the k nearest; d_s = (Psi^t - Psi^s) / ‖∇ₓ(Psi^t - Psi^s)‖_q the signed distance to the boundary with
    class s, over all s ≠ t. Within min_j d_j the network is affine, so where that is at least rho~ the sample's
    robustness is certified to be rho~; and min(min_j d_j, rho~) is certified in any case.

    Args:
        scores: (N, K) scores computed from ``inputs``; (N,) or (N, 1) is the logit of the positive class 1.
        inputs: the tensor or tuple of tensors (N, ...), requiring grad, that ``scores`` was computed from.
        target: the true class of each sample, as in Captum; None is the predicted class.
        units: the pre-activations, tensors (N, ...) on the same graph: ``found`` of `KinkedUnits`.
        region: γ_B, up to which distance a kink is penalised, in units of the input.
        margin: γ_D, up to which distance a boundary is.
        nearest: k, how many kinks of each sample count; each is differentiated twice.
        candidates: the k nearest are looked for among this many units of smallest |z|, a backward pass each; None is
            all of them, which is exact.
        norm: 1, 2 or inf, the norm of distances.

    Returns:
        (N,) without unit, in at least float32.

    Raises:
        TypeError: a tensor of the wrong kind, numbers that are none.
        ValueError: numbers that are not positive, no units, an unknown norm, shapes or targets that do not fit.

    Croce, Andriushchenko & Hein (2019).

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> with KinkedUnits() as units:
    ...     scores = model(x)
    >>> linear_region_penalty(scores, x, y, units.found, region=0.1, margin=0.5).shape
    torch.Size([8])
    """
    options = _check(region, margin, nearest, candidates, norm)
    return _regions(Graph(scores, inputs), target, units, *options)


class LinearRegions(Regularizer):
    """Enlarges the affine piece around each input and its distance to the boundaries: weight · mean of the penalty.

    Args:
        weight: at least 0.
        region, margin, nearest, candidates, norm: as of `linear_region_penalty`. Exact with ``candidates=None``, at
            one backward pass for each unit of the network; 100 is affordable.

    Raises:
        TypeError: numbers that are none.
        ValueError: numbers out of range; in the call, a model without (leaky) ReLU. Kinks of max pooling, clips and
            other functions are not seen.

    Croce, Andriushchenko & Hein (2019), maximum margin regularization; see `linear_region_penalty`.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(8, 4).requires_grad_(), torch.arange(8) % 3
    >>> LinearRegions(0.1, region=0.1, margin=0.5)(model, x, y).backward()
    """

    name = "linear_regions"

    def __init__(
        self,
        weight: float,
        *,
        region: float,
        margin: float,
        nearest: int = 10,
        candidates: int | None = 100,
        norm: float = 2,
    ):
        super().__init__(weight)
        self.region, self.margin, self.nearest, self.candidates, self.norm = _check(
            region, margin, nearest, candidates, norm
        )

    def penalty(self, graph: Graph, target: Any, *extras: Any) -> Tensor:  # noqa: ARG002
        assert isinstance(graph, _UnitGraph)
        options = self.region, self.margin, self.nearest, self.candidates, self.norm
        return _regions(graph, target, graph.units, *options)

    def _graph(self, model: Any, leaves: Tensors) -> Graph:
        with twice_differentiable(model), kept_buffers(model), KinkedUnits() as units:
            scores = scores_of(model, leaves)
        return _UnitGraph(scores, leaves, units.found)


class _UnitGraph(Graph):
    def __init__(self, scores: Tensor, inputs: Tensors, units: list[Tensor]) -> None:
        super().__init__(scores, inputs)
        self.units = units


def _regions(
    graph: Graph,
    target: Any,
    units: Any,
    region: float,
    margin: float,
    nearest: int,
    candidates: int | None,
    norm: float,
) -> Tensor:
    n = len(graph.scores)
    if not units or any(len(z) != n for z in units):
        raise ValueError(f"units: got {[tuple(z.shape) for z in units]}, expected pre-activations of {n} samples")
    z = torch.cat([u.flatten(1) for u in units], 1).to(graph.scores.dtype)

    def size(column: Callable[[], Tensor], create_graph: bool) -> Tensor:
        gradient = differentiate(column().sum(), graph.inputs, "units", create_graph=create_graph)
        return per_sample_norm(gradient, dual(norm))

    order = z.detach().abs().topk(min(candidates or z.shape[1], z.shape[1]), largest=False).indices
    plain = torch.stack([size(lambda c=c: select(z, c), False) for c in order.T], 1)
    found = z.detach().gather(1, order).abs() / plain
    chosen = order.gather(
        1, torch.where(plain > 0, found, torch.inf).topk(min(nearest, order.shape[1]), largest=False).indices
    )
    kinks = [_hinge(select(z, c).abs(), size(lambda c=c: select(z, c), True), region) for c in chosen.T]

    classes = resolve_target(as_target(target, n), graph.scores)
    rivals = gaps(graph.scores.detach(), classes).topk(graph.scores.shape[1] - 1, largest=False).indices
    boundaries = []
    for rival in rivals.T:
        gap = select(graph.scores, classes) - select(graph.scores, rival)
        boundaries.append(
            _hinge(
                gap,
                per_sample_norm(graph.gradient(lambda s, r=rival: select(s, classes) - select(s, r)), dual(norm)),
                margin,
            )
        )
    return torch.stack(kinks).mean(0) + torch.stack(boundaries).mean(0)


def _hinge(value: Tensor, size: Tensor, reach: float) -> Tensor:
    """max(0, 1 - value / (size · reach)); at rest, also with gradient 0, where a unit or a gap has none."""
    at_rest = (value.detach() >= size.detach() * reach) | (size.detach() == 0)
    return torch.where(at_rest, 0, 1 - value.masked_fill(at_rest, 0) / (size.masked_fill(at_rest, 1) * reach))


def _check(
    region: float, margin: float, nearest: int, candidates: int | None, norm: float
) -> tuple[float, float, int, int | None, float]:
    for name, value in (("region", region), ("margin", margin)):
        if check_factor(value, name) == 0:
            raise ValueError(f"{name}: got 0, expected a positive number")
    if candidates is not None:
        check_count("candidates", candidates, also=" or None (all)")
    return region, margin, check_count("nearest", nearest), candidates, check_norm(norm)
