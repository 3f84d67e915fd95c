"""All per-sample quantities of the linearized classifier, from one forward pass."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor

from captum_alignment._core._gradients import ScoreGraph, graphs, valid_inputs, warn_of_flat
from captum_alignment._core._inputs import (
    ForwardFunc,
    InputsT,
    Tensors,
    check_norm,
    dual,
    join,
    like_inputs,
    per_sample_dot,
    per_sample_norm,
    to_dataframe,
    unit,
)
from captum_alignment._core._nearest import nearest_rival
from captum_alignment._core._random import check_generator
from captum_alignment._core._rivals import check_candidates, is_open
from captum_alignment._core._scores import as_target, resolve_target
from captum_alignment._core._statistics import PERCENT, all_finite, describe

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class LinearAnalysis(Generic[InputsT]):
    """Per-sample tensors (N,) on the inputs' device, at least float32; the two maps have the shapes of the inputs.

    Attributes:
        target: the class t to leave. rival: the class j* whose linearized boundary is nearest.
        gap: Psi^t - Psi^j*, the margin; negative where t is not the top class.
        alignment: alpha = |<x, g>| / ‖g‖_q, g the gradient of Psi^t.
        binarized_alignment: alpha† = |<x, g†>| / ‖g†‖_q, g† the gradient of the margin.
        linearized_robustness: rho~ = gap / ‖g†‖_q; 0 at a tie, ±inf where g† = 0 at a gap that is not 0.
        bias: beta† / ‖g†‖_q, so that rho~ = <x, g†> / ‖g†‖_q + bias.
        noncollinearity: ‖x‖_p · min over s = ±1 of ‖g†/‖g†‖_q - s·g/‖g‖_q‖_q.
        bound: alignment + noncollinearity + |bias|, an upper bound of rho~, usually loose.
        direction_gap: alpha† - alpha. bias_gap: rho~ - alpha†. With alpha they sum to rho~ exactly.
        model_passes: forward and backward passes that each sample took.
        gradient, binarized_gradient: g and g†.
    """

    target: Tensor
    rival: Tensor
    gap: Tensor
    alignment: Tensor
    binarized_alignment: Tensor
    linearized_robustness: Tensor
    bias: Tensor
    noncollinearity: Tensor
    bound: Tensor
    direction_gap: Tensor
    bias_gap: Tensor
    model_passes: Tensor
    gradient: InputsT
    binarized_gradient: InputsT

    def scalars(self) -> dict[str, Tensor]:
        """Every per-sample quantity by name, without the two maps."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.endswith("gradient")}

    def to_dataframe(self) -> "DataFrame":
        """One row per sample, one column per quantity, without the two maps; needs pandas."""
        return to_dataframe(self.scalars())

    def __str__(self) -> str:
        """The diagnosis: where the linearized robustness departs from the alignment, as medians over the samples."""
        n = len(self.target)
        known = all_finite(self.direction_gap, self.bias_gap)
        bias_larger = int((self.bias_gap.abs() > self.direction_gap.abs())[known].sum())
        total = int(known.sum())
        direction_larger = total - bias_larger
        larger, count = ("bias", bias_larger) if bias_larger > direction_larger else ("direction", direction_larger)
        return "\n".join(
            [
                f"medians over {n} samples, {PERCENT} intervals; per sample the three terms sum exactly",
                f"linearized robustness {describe(self.linearized_robustness)}",
                f"  = alignment         {describe(self.alignment)}",
                f"  + direction gap     {describe(self.direction_gap)}  the map of one class is not that of the margin",
                f"  + bias gap          {describe(self.bias_gap)}  additive terms carry part of the margin",
                f"the {larger} gap is the larger one on {count} of {total} samples",
                f"upper bound           {describe(self.bound)}  alignment + noncollinearity + |bias|, not an estimate",
            ]
        )


def linear_analysis(
    forward_func: ForwardFunc,
    inputs: InputsT,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    norm: float = 2,
    candidates: int | None = None,
    internal_batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> LinearAnalysis[InputsT]:
    """Alignment, linearized robustness and what lies between them (Etmann et al. 2019, Definitions 2 to 4, Theorem 1).

    One forward pass and K backward passes for K classes, up to 65. Beyond, and in l_2 and l_inf, a sketch of all
    gradients finds the nearest of the rivals in a few dozen passes: every value returned is a true ratio, and the
    probability that it is not the minimum is at most 1e-6 per sample.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1: an `nn.Module`, a
            function, a Foolbox `PyTorchModel`.
        inputs: floating tensor (N, ...) or a tuple of such, one joint vector per sample.
        target: the class to leave, an int or (N,); None is the predicted class. Of a class that is not the top one the
            gap and the linearized robustness are negative.
        additional_forward_args: passed on after ``inputs``, as in Captum.
        norm: p of the perturbation, 1, 2 or inf; gradients are measured in its dual q, 1/p + 1/q = 1.
        candidates: search only the rivals with that many smallest gaps; None searches all, which is the definition.
        internal_batch_size: at most that many samples per model call.
        generator: of the sketch's random directions; None is a fixed private one, so that calls are reproducible.

    Raises:
        TypeError, ValueError: inputs that are not floating, empty or not finite; scores of another shape, NaN or +inf;
            targets out of range; batch norm or dropout in training mode.

    >>> result = linear_analysis(torch.nn.Linear(2, 3), torch.rand(5, 2))
    >>> result.linearized_robustness.shape
    torch.Size([5])
    """
    norm = check_norm(norm)
    check_candidates(candidates)
    check_generator(generator)
    tensors = valid_inputs(inputs, additional_forward_args)
    classes = as_target(target, len(tensors[0]))
    parts = [
        _analyse(graph, t, norm, candidates, generator)
        for graph, t in graphs(forward_func, tensors, additional_forward_args, internal_batch_size, classes)
    ]
    scalars, gradients, binarized = zip(*parts, strict=True)
    columns = {name: torch.cat([part[name] for part in scalars]) for name in scalars[0]}
    warn_of_flat(
        (join(gradients), "their alignment is 0 or NaN", None),
        (join(binarized), "their linearized robustness is inf or NaN", is_open(columns["gap"])),
    )
    return LinearAnalysis(
        **columns,
        gradient=like_inputs(join(gradients), inputs),
        binarized_gradient=like_inputs(join(binarized), inputs),
    )


def _analyse(
    graph: ScoreGraph, target: Tensor | None, norm: float, candidates: int | None, generator: torch.Generator | None
) -> tuple[dict[str, Tensor], Tensors, Tensors]:
    classes = resolve_target(target, graph.scores)
    gradient = graph.gradient(graph.one_hot(classes))
    nearest = nearest_rival(graph, classes, norm, candidates, generator, gradient)
    x, q = tuple(t.detach() for t in graph.inputs), dual(norm)
    direction, binarized_direction = unit(gradient, q), unit(nearest.gradient, q)
    alpha = per_sample_dot(x, direction).abs()
    signed = per_sample_dot(x, binarized_direction)
    bias = nearest.distance - signed
    apart = torch.minimum(
        per_sample_norm(_combine(binarized_direction, direction, -1), q),
        per_sample_norm(_combine(binarized_direction, direction, +1), q),
    )
    noncollinearity = per_sample_norm(x, norm) * apart
    scalars = {
        "target": classes,
        "rival": nearest.rival,
        "gap": nearest.gap,
        "alignment": alpha,
        "binarized_alignment": signed.abs(),
        "linearized_robustness": nearest.distance,
        "bias": bias,
        "noncollinearity": noncollinearity,
        "bound": alpha + noncollinearity + bias.abs(),
        "direction_gap": signed.abs() - alpha,
        "bias_gap": nearest.distance - signed.abs(),
        "model_passes": nearest.passes + 2,
    }
    return scalars, gradient, nearest.gradient


def _combine(a: Tensors, b: Tensors, sign: int) -> Tensors:
    return tuple(u + sign * v for u, v in zip(a, b, strict=True))
