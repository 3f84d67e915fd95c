"""Maxima as ReLUs: max(a, b) is b + relu(a - b), and of several, as in a tournament."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._constants import Call
from captum_alignment._core._piecewise import NotPiecewiseLinear


def maximum(tracer: Any, call: Call) -> Tensor:
    a, b = call.argument(0, "input"), call.argument(1, "other")
    return tracer.relu_of(a - b) + b


def minimum(tracer: Any, call: Call) -> Tensor:
    a, b = call.argument(0, "input"), call.argument(1, "other")
    return a - tracer.relu_of(a - b)


def largest(tracer: Any, call: Call) -> Tensor:
    z, other = call.argument(0, "input"), call.argument(1, "other")
    if isinstance(other, Tensor):
        return maximum(tracer, call)
    if len(call.args) > 1 or call.kwargs.keys() - {"input"}:
        raise NotPiecewiseLinear(f"forward_func: uses '{call.name}' over a dimension, with indices; expected amax")
    return _tournament(tracer, z.reshape(-1))


def amax(tracer: Any, call: Call) -> Tensor:
    z, dims, keep = call.argument(0, "input"), call.argument(1, "dim", ()), call.argument(2, "keepdim", False)
    dims = [dims] if isinstance(dims, int) else list(dims) or list(range(z.ndim))
    dims = sorted(d % z.ndim for d in dims)
    result = _tournament(tracer, z.movedim(dims, list(range(len(dims)))).flatten(0, len(dims) - 1))
    for d in dims if keep else ():
        result = result.unsqueeze(d)
    return result


def _tournament(tracer: Any, candidates: Tensor) -> Tensor:
    """The maximum along dimension 0, of pairs, of pairs of pairs, and so on."""
    tracer.begin_maximum(candidates)
    while len(candidates) > 1:
        half = len(candidates) // 2
        a, b = candidates[:half], candidates[half : 2 * half]
        won = tracer.relu_of(a - b, inside=True) + b
        candidates = won if len(candidates) % 2 == 0 else torch.cat([won, candidates[2 * half :]])
    return candidates[0]


def max_pool(tracer: Any, call: Call) -> Tensor:
    z, kernel, stride, padding, dilation = (
        call.argument(i, name, default)
        for i, (name, default) in enumerate(
            [("input", None), ("kernel_size", None), ("stride", None), ("padding", 0), ("dilation", 1)]
        )
    )
    if call.argument(6, "return_indices", False):
        raise NotPiecewiseLinear(f"forward_func: uses '{call.name}' with indices")
    d = int(call.name[-2])
    kernel, stride, padding, dilation = (
        [v] * d if isinstance(v, int) else list(v) * (d // len(v))
        for v in (kernel, stride or kernel, padding, dilation)
    )
    out = call.map(torch.zeros_like).run().shape[-d:]
    sizes = list(z.shape[-d:])
    # For every offset in the window and every output, the position of the candidate; outside the image, a valid one.
    lines = []
    for axis in range(d):
        at = torch.arange(out[axis])[None] * stride[axis] - padding[axis]
        at = at + torch.arange(kernel[axis])[:, None] * dilation[axis]
        valid = (at >= 0) & (at < sizes[axis])
        inside = at.gather(0, valid.int().argmax(0, keepdim=True))
        lines.append(torch.where(valid, at, inside))
    places = []
    for offsets in product(*(range(k) for k in kernel)):
        place = torch.zeros((), dtype=torch.long)
        for axis, offset in enumerate(offsets):
            place = place.unsqueeze(-1) * sizes[axis] + lines[axis][offset]
        places.append(place.flatten())
    index = torch.stack(places).to(z.device)  # (window, outputs)
    flat = z.flatten(-d)
    candidates = flat[..., index].movedim(-2, 0)
    return _tournament(tracer, candidates).unflatten(-1, tuple(out))
