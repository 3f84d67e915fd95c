"""Alignment of an input with a saliency map, and what chance would give."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_alignment._core._gradients import graphs, valid_inputs, warn_of_flat
from captum_alignment._core._inputs import (
    ForwardFunc,
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    as_tensors,
    check_norm,
    check_same_shapes,
    dual,
    flatten,
    join,
    per_sample_dot,
    per_sample_norm,
    ratio,
    unit,
)
from captum_alignment._core._scores import as_target, resolve_target

#: Rows of the Gram matrix held at once: bounds memory at about 1000 N numbers.
_NULL_ROWS = 1024


def alignment(
    inputs: TensorOrTuple, attributions: TensorOrTuple, *, norm: float = 2, normalize: bool = False
) -> Tensor:
    """|<x, a>| / ‖a‖_q per sample, for the output ``a`` of any Captum method.

    With the signed gradient of the predicted class' pre-softmax score as attribution this is the alignment alpha of
    Etmann et al. 2019, Definitions 2 and 3. It is in the units of the input. Three things change what it means:
    `captum.attr.Saliency` takes absolute values by default (pass ``abs=False``; |gradient| maps score high by chance
    alone, see `alignment_null`), `InputXGradient` and default `IntegratedGradients` already multiply by the input, and
    the value depends on how inputs were normalised.

    Args:
        inputs: tensor (N, ...) or a tuple of such, integers too; a tuple is one joint vector per sample.
        attributions: of the shapes of ``inputs``; (N, 1, ...) is one map for all channels of (N, C, ...).
        norm: p of the perturbation, 1, 2 or inf; the attribution is measured in its dual q, 1/p + 1/q = 1.
        normalize: divide by ‖x‖_p, which gives a value in [0, 1].

    Returns:
        Tensor (N,), at least float32. 0 for an all-zero attribution; NaN where an entry is NaN or infinite.

    Raises:
        TypeError, ValueError: not floating tensors, an empty batch, shapes that differ, an unknown norm.

    >>> alignment(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, -2.0]]))
    tensor([4.])
    """
    norm = check_norm(norm)
    x, a = as_tensors(inputs, integers=True), _over_channels(as_tensors(attributions, "attributions"), inputs)
    check_same_shapes(x, a, "attributions")
    result = ratio(per_sample_dot(x, a).abs(), per_sample_norm(a, dual(norm)))
    return ratio(result, per_sample_norm(x, norm)) if normalize else result


def _over_channels(attributions: Tensors, inputs: TensorOrTuple) -> Tensors:
    """Maps (N, 1, ...) that stand for every channel of their input, as one for each channel."""
    x = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(x) != len(attributions):
        return attributions
    return tuple(
        a.expand_as(t) if a.ndim > 2 and a.shape == t[:, :1].shape else a for a, t in zip(attributions, x, strict=True)
    )


class Alignment:
    """The alignment alpha of a classifier (Etmann et al. 2019, Definition 3): one forward and one backward pass.

    Args:
        forward_func: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        norm: as in `alignment`.
        internal_batch_size: at most that many samples per model call.

    >>> net = torch.nn.Linear(2, 3)
    >>> Alignment(net)(torch.rand(5, 2)).shape
    torch.Size([5])

    Raises:
        TypeError, ValueError: an unknown norm; in the call as `linear_analysis`. The result is in units of the input.
    """

    def __init__(self, forward_func: ForwardFunc, *, norm: float = 2, internal_batch_size: int | None = None) -> None:
        self.forward_func = forward_func
        self.norm = check_norm(norm)
        self.internal_batch_size = internal_batch_size

    def __call__(self, inputs: TensorOrTuple, target: Any = None, additional_forward_args: Any = None) -> Tensor:
        """alpha (N,) of the class ``target`` (None: the predicted one); arguments and errors as `linear_analysis`."""
        tensors = valid_inputs(inputs, additional_forward_args)
        classes = as_target(target, len(tensors[0]))
        gradients = []
        size = self.internal_batch_size
        for graph, t in graphs(self.forward_func, tensors, additional_forward_args, size, classes):
            gradients.append(graph.gradient(graph.one_hot(resolve_target(t, graph.scores))))
        gradient = join(gradients)
        warn_of_flat((gradient, "their alignment is 0 or NaN", None))
        return alignment(tensors, gradient, norm=self.norm)


class AlignmentNull(NamedTuple):
    """Per sample (N,): alignment, its chance level null, their difference excess, and its rank among other maps."""

    alignment: Tensor
    null: Tensor
    excess: Tensor
    rank: Tensor


def alignment_null(inputs: TensorOrTuple, attributions: TensorOrTuple, *, norm: float = 2) -> AlignmentNull:
    """The alignment of every sample with its own map, beside what the other samples' maps score on it.

    Alignment grows with anything that makes an input and a typical map overlap: mean brightness, absolute values, low
    frequencies. The null tells how much. Arguments and errors as in `alignment`.

    Returns:
        alignment alpha_i = |<x_i, â_i>|; null = mean of |<x_i, â_k>| over k ≠ i; excess = alignment - null;
        rank = share of those |<x_i, â_k>| that are smaller than alpha_i (ties count half), .5 by chance.
        A batch of one has no other map: null, excess and rank are NaN.

    Etmann et al. (2019), Definitions 2 and 3, and their chance level, which is ours.

    >>> images = torch.rand(8, 1, 4, 4)
    >>> alignment_null(images, torch.randn(8, 1, 4, 4)).rank.shape
    torch.Size([8])
    """
    norm = check_norm(norm)
    own = alignment(inputs, attributions, norm=norm)
    points, maps = gram_factors(inputs, attributions, norm)
    n = len(points)
    # Equal maps must tie although a matrix product rounds its columns differently; ‖x‖ bounds every entry of its row.
    tolerance = 16 * torch.finfo(points.dtype).eps * per_sample_norm((points,), norm)
    null, rank = torch.empty_like(own), torch.empty_like(own)
    for part, scores, mine in _gram(points, maps):
        lead = mine.unsqueeze(1) - scores
        lead = torch.where(lead.abs() <= tolerance[part].unsqueeze(1), 0, lead)
        rank[part] = (lead.sign().sum(1) / (n - 1) + 1) / 2
        null[part] = (scores.sum(1) - mine) / (n - 1)
    if n == 1:
        null, rank = torch.full_like(own, torch.nan), torch.full_like(own, torch.nan)
    return AlignmentNull(own, null, own - null, rank)


def alignment_null_of_maps(inputs: TensorOrTuple, attributions: TensorOrTuple, *, norm: float = 2) -> Tensor:
    """What every sample's map scores on the other samples: the mean over i ≠ k of |<x_i, â_k>| per sample k, (N,).

    The null of `alignment_null` is a mean over maps that its samples share, so that these means are what its interval
    needs besides; see ``shared`` of `median_interval`. Arguments, units and errors as in `alignment`; NaN for one
    sample. Both are projections of a U-statistic (Hoeffding 1948), in whose delete-one jackknife they add up.

    >>> alignment_null_of_maps(torch.eye(2), torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    tensor([0.8944, 0.0000])
    """
    points, maps = gram_factors(inputs, attributions, check_norm(norm))
    n = len(points)
    total = torch.zeros(n, dtype=points.dtype, device=points.device)
    for part, scores, mine in _gram(points, maps):
        total += scores.sum(0)
        total[part] -= mine
    return total / (n - 1)  # 0 / 0 is NaN


def gram_factors(inputs: TensorOrTuple, attributions: TensorOrTuple, norm: float) -> tuple[Tensor, Tensor]:
    """The inputs and their maps, of dual norm 1, as rows: |points @ maps.T| holds the alignment of each with each."""
    x, a = as_tensors(inputs, integers=True), _over_channels(as_tensors(attributions, "attributions"), inputs)
    check_same_shapes(x, a, "attributions")
    dtype = accumulation_dtype(*(t.dtype for t in (*x, *a)))
    return flatten(x, dtype), flatten(unit(a, dual(norm)), dtype)


def _gram(points: Tensor, maps: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A few rows at a time: which, their alignment (R, N) with every map, and that with their own map."""
    for start in range(0, len(points), _NULL_ROWS):
        part = slice(start, start + _NULL_ROWS)
        scores = (points[part] @ maps.T).abs()
        yield part, scores, scores.diagonal(start)
