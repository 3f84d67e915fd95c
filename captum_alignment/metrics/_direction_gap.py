"""What lies between the alignment and the binarized alignment: by class, and by layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_alignment._core._biases import Trace, traces
from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    check_norm,
    dual,
    per_sample_norm,
    ratio,
    to_dataframe,
)
from captum_alignment._core._nearest import nearest_rival
from captum_alignment._core._scores import as_target, resolve_target
from captum_alignment._core._statistics import PERCENT, describe
from captum_alignment.metrics._homogeneous_decomposition import SplitScore, join_terms, split_score

if TYPE_CHECKING:
    from pandas import DataFrame

#: Lines that str() gives to single layers.
_SHOWN = 10


@dataclass(frozen=True)
class DirectionGap:
    """Per-sample tensors (N,) in units of the input, on the inputs' device, at least float32.

    Attributes:
        gap: alpha† - alpha, the direction gap of `linear_analysis`. It is split in two ways, each an exact sum.
        of_target, of_rival: by class. The margin's gradient is that of the target less that of the rival: of_rival is
            what the rival's gradient adds; of_target what the other norm makes of the target's own.
        of_score, by_parameter, residual: by layer, as Theorem 1 splits <x, ∇Psi> = Psi - Σ <c, ∂Psi/∂c>. by_parameter
            is {name: what this additive term adds}, in the order of the forward pass; of_score is what is left where
            there are no such terms; residual is 0 up to rounding where the network is piecewise linear.
        target: the class. rival: the other class of the margin.
    """

    gap: Tensor
    of_target: Tensor
    of_rival: Tensor
    of_score: Tensor
    by_parameter: dict[str, Tensor]
    residual: Tensor
    target: Tensor
    rival: Tensor

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: gap, of_target, of_rival, of_score, residual and every term; needs pandas."""
        names = ("gap", "of_target", "of_rival", "of_score", "residual")
        return to_dataframe({**{name: getattr(self, name) for name in names}, **self.by_parameter})

    def __str__(self) -> str:
        largest = sorted(self.by_parameter, key=lambda name: -self.by_parameter[name].abs().median())
        parts = {"direction gap": self.gap, "  target": self.of_target, "  rival": self.of_rival}
        parts |= {"  score": self.of_score} | {f"  {name}": self.by_parameter[name] for name in largest[:_SHOWN]}
        width = max(map(len, parts))
        lines = [
            f"medians over {len(self.gap)} samples, {PERCENT} intervals; per sample target + rival, as score + terms,"
        ]
        lines += ["sum exactly to the gap", *(f"{name:<{width}} {describe(part)}" for name, part in parts.items())]
        left = len(largest) - _SHOWN
        return "\n".join([*lines, f"  and {left} smaller terms"] if left > 0 else lines)


def direction_gap(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    norm: float = 2,
    internal_batch_size: int | None = None,
) -> DirectionGap:
    """alpha† - alpha (N,), split by class and by layer (Etmann et al. 2019, Definition 3 and Theorem 1).

    With s and s† the signs of <x, g> and <x, g†>, and g† = g - g', g' the gradient of the rival's score,

        alpha† - alpha = <x, g> (s† / ‖g†‖ - s / ‖g‖) - s† <x, g'> / ‖g†‖,

    and by Theorem 1 every additive term c adds s <c, ∂Psi/∂c> / ‖g‖ - s† <c, ∂Psi†/∂c> / ‖g†‖.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1, which
            has no direction gap. Terms have the names of `homogeneous_decomposition`.
        inputs, target, additional_forward_args, norm, internal_batch_size: as in `linear_analysis`.

    Raises:
        TypeError, ValueError: as `linear_analysis`.

    >>> net = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3)).double()
    >>> found = direction_gap(net, torch.rand(4, 6, dtype=torch.float64))
    >>> torch.allclose(found.of_target + found.of_rival, found.gap)
    True
    >>> torch.allclose(found.of_score + sum(found.by_parameter.values()), found.gap)
    True
    """
    norm = check_norm(norm)
    tensors = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size)
    classes = as_target(target, len(tensors[0]))
    parts = [
        _split(trace, t, norm)
        for trace, t in traces(forward_func, internal_batch_size, tensors, additional_forward_args, classes)
    ]
    columns = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
    terms = join_terms([terms for _, terms in parts], [len(part["gap"]) for part, _ in parts])
    return DirectionGap(by_parameter=terms, **columns)


def _split(trace: Trace, target: Tensor | None, norm: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    graph = trace.graph
    classes = resolve_target(target, graph.scores)
    rival = nearest_rival(graph, classes, norm).rival
    own, other = graph.one_hot(classes), graph.one_hot(rival)
    score, margin = split_score(trace, own), split_score(trace, own - other)
    one, both = _signed_inverse(score, norm), _signed_inverse(margin, norm)
    names = dict.fromkeys([*score.terms, *margin.terms])
    none = torch.zeros_like(score.score)
    terms = {name: score.terms.get(name, none) * one - margin.terms.get(name, none) * both for name in names}
    gap = margin.linear * both - score.linear * one
    of_score = margin.score * both - score.score * one
    columns = {
        "gap": gap,
        "of_target": score.linear * (both - one),
        "of_rival": (margin.linear - score.linear) * both,
        "of_score": of_score,
        "residual": gap - of_score - sum(terms.values(), none),
        "target": classes,
        "rival": rival,
    }
    return columns, terms


def _signed_inverse(split: SplitScore, norm: float) -> Tensor:
    """sign <x, ∇Psi> / ‖∇Psi‖ (N,), by which a part of <x, ∇Psi> is one of the alignment; 0 for a zero gradient."""
    return ratio(split.linear.sign(), per_sample_norm(split.gradient, dual(norm)))
