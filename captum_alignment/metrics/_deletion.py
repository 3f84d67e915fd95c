"""What a classifier still makes of inputs that lose one feature after the other, without retraining."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_alignment._core._gradients import checked_inputs
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    batches,
    to_dataframe,
)
from captum_alignment._core._scores import as_scores, as_target, reported, resolve_target, run_output
from captum_alignment._core._statistics import PERCENT, describe
from captum_alignment.metrics._removal import Per, check_fraction, filling_for, ranked, replaced

if TYPE_CHECKING:
    from pandas import DataFrame

Of: TypeAlias = Literal["probability", "score"]


@dataclass(frozen=True)
class DeletionCurve:
    """Per sample, on the inputs' device, at least float32.

    Attributes:
        fraction: (F,) ascending, with the whole input among them: 0 first, or with ``keep`` 1 last.
        value: (N, F) the target's probability or score at each fraction.
        target: the class (N,). keep: whether the fraction is the one that is kept.
    """

    fraction: Tensor
    value: Tensor
    target: Tensor
    keep: bool

    @property
    def area(self) -> Tensor:
        """The area under the curve (N,) over the range of the fractions: its mean height, in units of ``value``."""
        return torch.trapezoid(self.value, self.fraction, dim=1) / (self.fraction[-1] - self.fraction[0])

    def to_dataframe(self) -> "DataFrame":
        """One row per sample: target, area and the value at every fraction; needs pandas."""
        word = "kept" if self.keep else "removed"
        values = {f"{word}_{f:g}": self.value[:, i] for i, f in enumerate(self.fraction.tolist())}
        return to_dataframe({"target": self.target, "area": self.area, **values})

    def __str__(self) -> str:
        lines = [f"medians over {len(self.value)} samples, {PERCENT} intervals", f"area         {describe(self.area)}"]
        word = "kept   " if self.keep else "removed"
        lines += [f"{word} {f:<5.3g}{describe(self.value[:, i])}" for i, f in enumerate(self.fraction.tolist())]
        return "\n".join(lines)


def deletion_curve(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    baselines: Any = None,
    fractions: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    keep: bool = False,
    per: Per = "pixel",
    absolute: bool = False,
    feature_mask: TensorOrTuple | None = None,
    of: Of = "probability",
    internal_batch_size: int | None = None,
    generator: torch.Generator | None = None,
    baseline: Any = None,
) -> DeletionCurve:
    """How the target's probability falls as `remove_features` takes more and more away, *without retraining*.

    It is cheap, one forward pass for each fraction, and it is not ROAR: the model has never seen images with holes, so
    part of the fall is owed to their strangeness and not to what was removed (Hooker et al. 2019, Section 3). Compare
    it with that of random attributions. Steep is good, and with ``keep`` (insertion) an early rise. The features that
    go first are also gone at the larger fractions, ties included.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        inputs, attributions, baselines, keep, per, absolute, feature_mask, generator, baseline: as of
            `remove_features`.
        target: the class, an int or (N,); None is the predicted class of the whole input.
        additional_forward_args: passed on after ``inputs``, as in Captum.
        fractions: ascending, strictly between 0 and 1; the whole input is added to them.
        of: "probability" is the softmax of the scores, "score" the score itself.
        internal_batch_size: at most that many samples per model call.

    Raises:
        TypeError, ValueError: as `remove_features` and `captum_alignment.linear_analysis`.

    Samek et al. (2017); Petsiuk, Das & Saenko (2018).

    >>> curve = deletion_curve(torch.nn.Linear(4, 3), torch.rand(5, 4), torch.rand(5, 4), baselines=0, fractions=(0.5,))
    >>> curve.value.shape, curve.area.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    if of not in get_args(Of):
        raise ValueError(f"of: got {of!r}, expected 'probability' or 'score'")
    x = checked_inputs(forward_func, inputs, additional_forward_args, internal_batch_size, integers=True)
    ranking = ranked(x, attributions, per, absolute, feature_mask, generator)
    filling = filling_for(x, baselines, baseline)
    steps = [check_fraction(fraction) for fraction in fractions]
    if not steps or any(b <= a for a, b in pairwise(steps)):
        raise ValueError(f"fractions: got {tuple(fractions)!r}, expected ascending numbers between 0 and 1")
    classes = as_target(target, len(x[0]))
    found = []
    for part in batches(internal_batch_size, x, additional_forward_args, classes, *ranking, filling):
        found.append(_curve(forward_func, steps, keep, of, *part))
    value, targets = map(torch.cat, zip(*found, strict=True))
    fraction = value.new_tensor([*steps, 1.0] if keep else [0.0, *steps])
    return DeletionCurve(fraction, value, targets, keep)


@torch.no_grad()
def _curve(
    forward_func: ForwardFunc,
    steps: list[float],
    keep: bool,
    of: Of,
    x: Tensors,
    args: Any,
    target: Tensor | None,
    grid: Tensors,
    order: Tensor,
    sizes: Tensor,
    filling: Tensors,
) -> tuple[Tensor, Tensor]:
    """The values (n, F) of one batch, and its target."""
    whole = run_output(forward_func, x, args)
    found = [run_output(forward_func, replaced(x, grid, order, sizes, step, filling, keep), args) for step in steps]
    outputs = [*found, whole] if keep else [whole, *found]
    scores = torch.stack([as_scores(output, len(output)) for output in outputs], 1)
    scores = scores.to(accumulation_dtype(scores.dtype))
    if of == "score":
        classes, weights = reported(whole, target)
        values = scores * weights.unsqueeze(1)
    else:
        classes = resolve_target(target, as_scores(whole, len(whole)))
        values = scores.softmax(2)
    return values[torch.arange(len(values)), :, classes], classes
