"""The radius on which a piecewise linear network is affine: what Lemma 1 of Etmann et al. (2019) needs."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_alignment._core._gradients import ScoreGraph, checked_inputs, for_autograd
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    Tensors,
    batches,
    check_norm,
    to_dataframe,
)
from captum_alignment._core._nearest import nearest_rival
from captum_alignment._core._piecewise import Piecewise
from captum_alignment._core._piecewise_trace import trace
from captum_alignment.metrics._linear_analysis import linear_analysis

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class LinearRegion:
    """Per sample (N,), on the inputs' device.

    Attributes:
        radius: l(x), the distance to the nearest kink: the scores are affine on the open ball; inf without a kink.
        linearized_robustness: rho~.
    """

    radius: Tensor
    linearized_robustness: Tensor

    @property
    def applies(self) -> Tensor:
        """Where l >= rho~ >= 0: then Lemma 1 gives rho = rho~ exactly, in free space."""
        return (self.radius >= self.linearized_robustness) & (self.linearized_robustness >= 0)

    @property
    def certificate(self) -> Tensor:
        """min(l, rho~) <= rho; 0 where the class to leave is not predicted."""
        return torch.minimum(self.radius, self.linearized_robustness).clamp(min=0)

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: radius, linearized_robustness, applies and certificate; needs pandas."""
        names = ("radius", "linearized_robustness", "applies", "certificate")
        return to_dataframe({name: getattr(self, name) for name in names})

    def __str__(self) -> str:
        n = len(self.radius)
        return (
            f"medians over {n} samples: radius of the linear region {self.radius.median():.4g}, linearized robustness "
            f"{self.linearized_robustness.median():.4g}; Lemma 1 applies to {int(self.applies.sum())}"
        )


def linear_region(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    norm: float = 2,
    internal_batch_size: int | None = None,
    generator: torch.Generator | None = None,
    show_progress: bool = False,
) -> LinearRegion:
    """l(x) = min |z| / ‖∇z‖_q over all kinks z of a piecewise linear network, and whether it reaches rho~.

    z is the pre-activation of a (leaky) ReLU, the distance of a clip to its corner, or the lead of the largest entry of
    a max pool over another one. Inside the region every z is affine, so that l is exact; it is found among all units as
    the nearest rival of the scores (0, -|z_1|, …, -|z_M|), in float64, with a probability of failure of at most 1e-6
    per sample (in l_1 by one backward pass per unit). Etmann et al. 2019, Lemma 1: where l >= rho, rho = rho~; and
    min(l, rho~) <= rho always.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1. Piecewise linear.
        inputs: floating tensor (N, ...) or a tuple of such, one joint vector per sample.
        target, additional_forward_args, internal_batch_size, generator: as in `linear_analysis`.
        norm: p of the perturbation, 1, 2 or inf.
        show_progress: a progress bar over the samples.

    Raises:
        NotPiecewiseLinear: a `ValueError` that names an operation that is not known to be piecewise linear.
        TypeError, ValueError: as `linear_analysis`.

    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(5, 4)
    >>> exact = (net[0](x).abs() / net[0].weight.norm(dim=1)).amin(1)
    >>> torch.allclose(linear_region(net, x).radius.float(), exact, rtol=1e-4)
    True
    """
    norm = check_norm(norm)
    tensors = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size)
    analysis = linear_analysis(
        forward_func,
        tensors,
        target,
        additional_forward_args,
        norm=norm,
        internal_batch_size=internal_batch_size,
        generator=generator,
    )
    with torch.inference_mode(False):
        samples = for_autograd((tensors, additional_forward_args))
        parts = tqdm(batches(1, *samples), total=len(tensors[0]), desc="regions", disable=not show_progress)
        radius = [_radius(trace(forward_func, x, args), x, norm, generator) for x, args in parts]
    return LinearRegion(
        torch.tensor(radius, dtype=torch.float64, device=tensors[0].device), analysis.linearized_robustness.double()
    )


def _radius(network: Piecewise, x: Tensors, norm: float, generator: torch.Generator | None) -> float:
    x = tuple(part.double() for part in x)
    with torch.no_grad():
        at = _kinks(network, x)
    keep = at.isfinite()
    with torch.enable_grad():
        leaves = tuple(part.detach().requires_grad_() for part in x)
        zeros = keep & (at == 0)
        if zeros.any():  # one that is 0 all around limits nothing; random weights see whether some gradient is not 0
            weights = torch.randn(int(zeros.sum()), generator=torch.Generator().manual_seed(0)).to(at)
            found = torch.autograd.grad(_kinks(network, leaves)[zeros] @ weights, leaves, allow_unused=True)
            if any(g is not None and bool(g.any()) for g in found):
                return 0.0
            keep &= ~zeros
    if not keep.any():
        return math.inf

    def scores(*x: Tensor) -> Tensor:
        distances = _kinks(network, x)[keep].abs()
        return torch.cat([distances.new_zeros(1), -distances]).unsqueeze(0)

    graph = ScoreGraph(scores, x)
    nearest = nearest_rival(graph, torch.zeros(1, dtype=torch.long, device=at.device), norm, None, generator)
    return float(nearest.distance)


def _kinks(network: Piecewise, x: Tensors) -> Tensor:
    """All z (M,) whose zeros are kinks; inf for the largest entry of a maximum itself."""
    values = network.values(x)
    found = [values[network.nodes[i].parents[0]].flatten() for i in network.relus() if i not in network.inside]
    for i in network.maxima:
        entries = values[i]
        first = entries.argmax(0, keepdim=True)
        lead = entries.gather(0, first) - entries
        found.append(lead.scatter(0, first, torch.inf).flatten())
    return torch.cat(found) if found else x[0].new_zeros(0)
