"""Inputs without the features that an attribution ranks highest, or with these alone."""

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from captum_alignment._core._inputs import (
    InputsT,
    TensorOrTuple,
    Tensors,
    accumulation_dtype,
    as_tensors,
    check_finite,
    check_same_shapes,
    flatten,
    is_number,
    like_inputs,
    unflatten,
    widest_dtype,
)
from captum_alignment._core._random import as_generator

Per: TypeAlias = Literal["pixel", "value"]


def remove_features(
    inputs: InputsT,
    attributions: TensorOrTuple,
    fraction: float,
    *,
    baselines: Any = None,
    keep: bool = False,
    per: Per = "pixel",
    absolute: bool = False,
    feature_mask: TensorOrTuple | None = None,
    generator: torch.Generator | None = None,
    baseline: Any = None,
) -> InputsT:
    """``inputs`` with the top ``fraction`` of each sample's features replaced by ``baselines``: ROAR's removal.

    With ``keep`` the top fraction stays and the rest is replaced: KAR. Of F features exactly round(fraction · F) are
    the top ones. The call is pure, and of one sample independent of the others unless attributions tie.

    Args:
        inputs: tensor (N, ...) or a tuple of such, integers too, whose features are ranked together.
        attributions: of the shapes of ``inputs``; per pixel, (N, 1, ...) will do for any number of channels.
        fraction: strictly between 0 and 1.
        baselines: what replaces them: a number, a value per channel (C,), or a tensor that broadcasts to the inputs;
            for a tuple of inputs also a tuple with one of these for each. ROAR takes the mean of each channel over the
            *training set*, ``images.mean((0, 2, 3))``. There is no default, as a batch does not know that mean.
        keep: keep the top fraction and replace the rest.
        per: "pixel" ranks the positions of (N, C, ...), by the sum over channels, and replaces all channels of one;
            "value" ranks every entry by itself, which is what the authors' code does. For (N, D) they are the same.
        absolute: rank by the absolute values, taken before channels are summed; otherwise the most positive are on top.
        feature_mask: integers of the shapes of ``inputs``, or that broadcast to them (batch size 1), as in Captum: the
            entries of a sample with equal numbers, also of several tensors, are one feature, ranked by the sum of its
            attributions and replaced as one. ``per`` is of no account then: there is one attribution for every entry.
        generator: breaks ties, which a constant map consists of, at random. None is a fixed private one, the same in
            every call; for independent ties pass one on from batch to batch.
        baseline: another word for ``baselines``.

    Returns:
        New tensors like ``inputs``.

    Raises:
        TypeError: not tensors, or attributions that are not floating.
        ValueError: attributions of another shape, NaN or infinite ones; a fraction outside (0, 1); a baseline that does
            not broadcast or is not finite; a mask that is not of integers or does not broadcast; an unknown ``per``.

    Hooker, Erhan, Kindermans & Kim (2019).

    >>> x, a = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[0.1, 0.9, 0.5, -1]])
    >>> remove_features(x, a, 0.5, baselines=0)
    tensor([[1., 0., 0., 4.]])
    >>> remove_features(x, a, 0.5, baselines=0, keep=True)
    tensor([[0., 2., 3., 0.]])
    """
    x = as_tensors(inputs, integers=True)
    ranking = ranked(x, attributions, per, absolute, feature_mask, generator)
    filling, share = filling_for(x, baselines, baseline), check_fraction(fraction)
    return like_inputs(replaced(x, *ranking, share, filling, keep), inputs)


def ranked(
    x: Tensors,
    attributions: TensorOrTuple,
    per: Per,
    absolute: bool,
    feature_mask: TensorOrTuple | None,
    generator: torch.Generator | None,
) -> tuple[Tensors, Tensor, Tensor]:
    """What may be removed: its layout as tensors, its rank (N, D), and the number of features (N,) of each sample."""
    grid = importance_of(x, attributions, per if feature_mask is None else "value", absolute)
    if feature_mask is None:
        order = ranks(grid, generator)
        return grid, order, order.new_full((len(order),), order.shape[1])
    groups = flatten(_masks_for(x, feature_mask), torch.int64).unique(return_inverse=True)[1]
    values = flatten(grid, widest_dtype(grid[0].device))
    sums = values.new_zeros(len(values), int(groups.max()) + 1)
    present = torch.zeros_like(sums, dtype=torch.bool).scatter_(1, groups, True)
    # Numbers that only other samples have come last.
    sums = sums.scatter_add_(1, groups, values).masked_fill_(~present, -torch.inf)
    return grid, ranks((sums,), generator).gather(1, groups), present.sum(1)


def _masks_for(x: Tensors, feature_mask: TensorOrTuple) -> Tensors:
    given = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    if len(given) != len(x):
        raise ValueError(f"feature_mask: got {len(given)} tensors, expected one for each of {len(x)} input tensors")
    return tuple(_mask_for(mask, t) for mask, t in zip(given, x, strict=True))


def _mask_for(mask: Any, x: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.is_complex():
        got = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"feature_mask: got {got}, expected a tensor of integers or a tuple of such")
    try:
        return mask.to(x.device).expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"feature_mask: got shape {tuple(mask.shape)}, expected one that broadcasts to inputs of {tuple(x.shape)}"
        ) from None


def importance_of(x: Tensors, attributions: TensorOrTuple, per: Per, absolute: bool) -> Tensors:
    """One number for each feature: (N, 1, ...) per pixel of (N, C, ...), else shaped like the input."""
    if per not in get_args(Per):
        raise ValueError(f"per: got {per!r}, expected 'pixel' or 'value'")
    given = tuple(a.detach() for a in as_tensors(attributions, "attributions"))
    expected = x
    if per == "pixel" and len(given) == len(x):  # one channel stands for all
        expected = tuple(t[:, :1] if a.ndim > 2 and a.shape[1] == 1 else t for a, t in zip(given, x, strict=True))
    check_same_shapes(expected, given, "attributions")
    check_finite(given, "attributions")
    given = tuple(a.to(t.device, accumulation_dtype(a.dtype)) for a, t in zip(given, x, strict=True))
    given = tuple(a.abs() for a in given) if absolute else given
    return tuple(a.sum(1, keepdim=True) if per == "pixel" and a.ndim > 2 else a for a in given)


def ranks(importance: Tensors, generator: torch.Generator | None) -> Tensor:
    """The rank (N, F) of every feature of a sample, 0 for the most important one."""
    flat = flatten(importance, accumulation_dtype(*(a.dtype for a in importance)))
    generator = as_generator(generator)
    # A stable sort of shuffled features leaves ties in the order of the shuffle.
    order = torch.rand(flat.shape, generator=generator, device=generator.device).to(flat.device).argsort(1)
    order = order.gather(1, flat.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))


def replaced(
    x: Tensors, grid: Tensors, ranks: Tensor, sizes: Tensor, fraction: float, filling: Tensors, keep: bool
) -> Tensors:
    """``x`` with ``filling`` in the features, as of `ranked`, that are to go."""
    count = (fraction * sizes.to(widest_dtype(sizes.device))).round().unsqueeze(1)
    masks = unflatten(ranks >= count if keep else ranks < count, grid)
    return tuple(torch.where(mask.bool(), b, t) for mask, b, t in zip(masks, filling, x, strict=True))


def filling_for(x: Tensors, baselines: Any, baseline: Any = None) -> Tensors:
    """``baselines``, or ``baseline`` as it may also be called, as tensors of the shapes of ``x``."""
    if (baselines is None) == (baseline is None):
        given = "None" if baselines is None else "both it and baseline"
        raise TypeError(f"baselines: got {given}, expected what replaces the features, for example 0 or their mean")
    baselines = baseline if baselines is None else baselines
    given = baselines if isinstance(baselines, tuple) else (baselines,) * len(x)
    if len(given) != len(x):
        raise ValueError(f"baselines: got a tuple of {len(given)}, expected one for each of {len(x)} input tensors")
    return tuple(_expanded(value, t) for value, t in zip(given, x, strict=True))


def _expanded(value: Any, x: Tensor) -> Tensor:
    try:
        given = torch.as_tensor(value, device=x.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"baselines: got {value!r}, expected numbers or a tensor") from None
    value = given.to(x.dtype)
    if not x.is_floating_point() and not torch.equal(value.to(given.dtype), given):
        raise ValueError(f"baselines: got values that inputs of {x.dtype} cannot hold, expected integers in its range")
    shape = tuple(value.shape)
    if value.ndim == 1 and x.ndim > 2:
        value = value.reshape(-1, *[1] * (x.ndim - 2))
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"baselines: got shape {shape}, expected a number, a value per channel, or a tensor that "
            f"broadcasts to inputs of shape {tuple(x.shape)}"
        )
    if not value.isfinite().all():
        raise ValueError("baselines: got NaN or infinite entries, expected finite ones")
    return value.expand_as(x)


def check_fraction(fraction: Any) -> float:
    """``fraction``, or a `ValueError` unless it is a number strictly between 0 and 1."""
    if not is_number(fraction) or not 0 < fraction < 1:
        raise ValueError(f"fraction: got {fraction!r}, expected a number between 0 and 1, neither included")
    return float(fraction)
