"""The margin of a classifier along the step to its linearized boundary: the linear picture in that one direction."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    as_tensors,
    batches,
    check_count,
    check_norm,
    check_same_shapes,
    flatten,
    per_sample,
    per_sample_scale,
    rows,
    to_dataframe,
    unflatten,
    unit,
)
from captum_alignment._core._scores import run_scores
from captum_alignment.metrics._linear_analysis import LinearAnalysis, linear_analysis

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class LinearityProfile:
    """Per sample, on the inputs' device, at least float32.

    Attributes:
        t: the T fractions of the way, from 0 to 1.
        margin: (N, T) m(t) = Psi†(x + t·e) / Psi†(x); 1 - t where the scores are affine. NaN at a margin of 0 and where
            no step reaches the linearized boundary.
        adversarial_margin: (N, T) the margin over the class that the adversarial takes, along x + t·(x_adv - x), as a
            fraction of its value at x; affine in t where the scores are. NaN where there is no adversarial.
        target: the class to leave. rival: the class whose linearized boundary is nearest.
    """

    t: Tensor
    margin: Tensor
    adversarial_margin: Tensor
    target: Tensor
    rival: Tensor

    @property
    def end(self) -> Tensor:
        """m(1) (N,): 0 where affine; at or below 0 the step crosses the boundary, so rho <= rho~ in free space."""
        return self.margin[:, -1]

    @property
    def deviation(self) -> Tensor:
        """Mean over t of |m(t) - (1 - t)| (N,)."""
        return (self.margin - (1 - self.t)).abs().mean(1)

    @property
    def adversarial_deviation(self) -> Tensor:
        """Mean distance (N,) of the adversarial profile from the straight line between its two ends."""
        chord = 1 + self.t * (self.adversarial_margin[:, -1:] - 1)
        return (self.adversarial_margin - chord).abs().mean(1)

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: target, rival, end, deviation and adversarial_deviation; needs pandas."""
        names = ("target", "rival", "end", "deviation", "adversarial_deviation")
        return to_dataframe({name: getattr(self, name) for name in names})

    def __str__(self) -> str:
        at = sorted({round(f * (len(self.t) - 1)) for f in (0.25, 0.5, 0.75, 1)})
        lines = [f"medians over {len(self.margin)} samples"]
        lines += [f"m({float(self.t[i]):.3g})".ljust(22) + f" {self.margin[:, i].nanmedian():10.4g}" for i in at]
        for name in ("deviation", "adversarial_deviation"):
            if not getattr(self, name).isnan().all():
                lines.append(f"{name:<22} {getattr(self, name).nanmedian():10.4g}")
        return "\n".join(lines)


def linearity_profile(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    norm: float = 2,
    steps: int = 10,
    adversarials: TensorOrTuple | None = None,
    analysis: LinearAnalysis[Any] | None = None,
    internal_batch_size: int | None = None,
) -> LinearityProfile:
    """m(t) = Psi†(x + t·e) / Psi†(x) along the shortest step e to the linearized boundary, t in [0, 1].

    Psi† is the margin over the rival whose linearized boundary is nearest (Etmann et al. 2019, Definition 4). In l_2,
    e = -rho~ g†/‖g†‖; in l_inf, -rho~ sign(g†); in l_1 the step changes the one feature with the largest gradient.
    Their Lemma 1 makes rho = rho~ where the scores are affine on a ball around x that reaches the boundary. A profile
    that bends shows that they are not; a straight one shows it for this one direction and margin alone, and another
    class can be nearer elsewhere: `linear_region` decides it for piecewise linear networks. The inputs are not kept in
    bounds. The passes of the search for the rival, unless ``analysis`` brings its result, and then one
    forward pass per step.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        inputs, target, additional_forward_args, internal_batch_size: as in `linear_analysis`.
        norm: p of the perturbation, 1, 2 or inf.
        steps: the number of steps from t = 0 to t = 1.
        adversarials: shaped like ``inputs``; a sample that is not finite, or not predicted otherwise than the class to
            leave, has none, which is what `adversarial_distance` returns where no attack succeeded.
        analysis: what `linear_analysis` returned for the same arguments: its search is not repeated, and ``target`` is
            its target.

    Raises:
        TypeError, ValueError: as `linear_analysis`; ``steps`` that is not a positive integer; adversarials of other
            shapes than the inputs; an ``analysis`` of other inputs, or beside a ``target``.

    >>> profile = linearity_profile(torch.nn.Linear(4, 3).double(), torch.rand(5, 4).double(), steps=2)
    >>> torch.allclose(profile.margin, torch.tensor([1, 0.5, 0]).double())
    True
    """
    norm = check_norm(norm)
    check_count("steps", steps)
    tensors = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size)
    ends = None
    if adversarials is not None:
        ends = as_tensors(adversarials, "adversarials")
        check_same_shapes(tensors, ends, "adversarials")
    if analysis is None:
        analysis = linear_analysis(
            forward_func,
            tensors,
            target,
            additional_forward_args,
            norm=norm,
            internal_batch_size=internal_batch_size,
        )
    elif target is not None:
        raise ValueError("target: got one beside analysis, expected only one of them (the analysis has its own)")
    if not isinstance(analysis, LinearAnalysis):
        raise TypeError(f"analysis: got {type(analysis).__name__}, expected what linear_analysis returned")
    gradient = as_tensors(analysis.binarized_gradient, "analysis")
    check_same_shapes(tensors, gradient, "analysis")
    found = (analysis.target, analysis.rival, analysis.linearized_robustness, gradient)
    t = torch.arange(steps + 1, device=tensors[0].device, dtype=accumulation_dtype(tensors[0].dtype)) / steps
    parts = [
        _profile(forward_func, x, args, adv, known, norm, t)
        for x, args, adv, known in batches(internal_batch_size, tensors, additional_forward_args, ends, found)
    ]
    margin, back = map(torch.cat, zip(*parts, strict=True))
    return LinearityProfile(t, margin, back, analysis.target, analysis.rival)


def _profile(
    forward_func: ForwardFunc,
    x: Tensors,
    args: Any,
    ends: Tensors | None,
    found: tuple[Tensor, Tensor, Tensor, Tensors],
    norm: float,
    t: Tensor,
) -> tuple[Tensor, Tensor]:
    target, rival, distance, gradient = found
    x = tuple(part.detach() for part in x)
    step = per_sample_scale(_steepest(gradient, norm), -distance)
    margin = _along(forward_func, x, step, args, target, rival, t)
    back = torch.full_like(margin, torch.nan)
    if ends is not None:
        finite = torch.stack([rows(end, end.dtype).isfinite().all(1) for end in ends]).all(0)
        ends = tuple(torch.where(per_sample(finite, u), u, v) for u, v in zip(ends, x, strict=True))
        with torch.no_grad():
            taken = run_scores(forward_func, ends, args).argmax(1)
        finite &= taken != target
        segment = tuple(end - part for end, part in zip(ends, x, strict=True))
        along = _along(forward_func, x, segment, args, target, taken, t)
        back = torch.where(finite.unsqueeze(1), along, torch.nan)
    return margin, back


@torch.no_grad()
def _along(
    forward_func: ForwardFunc, x: Tensors, step: Tensors, args: Any, target: Tensor, rival: Tensor, t: Tensor
) -> Tensor:
    """The margin of ``target`` over ``rival`` at x + t·step, as a fraction of its value at x (N, T)."""
    values = []
    for fraction in t.tolist():
        point = tuple((part + fraction * move).to(part.dtype) for part, move in zip(x, step, strict=True))
        scores = run_scores(forward_func, point, args)
        pair = scores.gather(1, torch.stack([target, rival], 1)).to(accumulation_dtype(scores.dtype))
        values.append(pair[:, 0] - pair[:, 1])
    margins = torch.stack(values, 1)
    return margins / torch.where(margins[:, :1] == 0, torch.nan, margins[:, :1])


def _steepest(gradient: Tensors, norm: float) -> Tensors:
    """The direction v with ‖v‖_p = 1 along which <g, v> = ‖g‖_q; 0 where the gradient is."""
    if norm == 1:
        flat = flatten(gradient, accumulation_dtype(*(part.dtype for part in gradient)))
        index = flat.abs().argmax(1, keepdim=True)
        return unflatten(torch.zeros_like(flat).scatter_(1, index, flat.gather(1, index).sign()), gradient)
    if norm == torch.inf:
        return tuple(part.sign() for part in gradient)
    return unit(gradient, 2)
