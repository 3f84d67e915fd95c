"""Which torch functions are piecewise linear: those that are affine, and how the others are made of ReLUs."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._constants import Call
from captum_alignment._core._piecewise import NotPiecewiseLinear
from captum_alignment._core._piecewise_maxima import amax, largest, max_pool, maximum, minimum

#: What does not look at values.
FREE = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "is_floating_point", "is_complex", "is_contiguous"),
    *("element_size", "get_device", "hash", "len", "is_inference", "zeros_like", "ones_like", "full_like"),
    *("new_zeros", "new_ones", "new_full"),
}
PROPERTIES = {
    *("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_cpu", "is_mps", "is_leaf"),
    *("is_sparse", "is_quantized", "is_meta", "is_nested", "itemsize", "names", "_version"),
}
#: Affine in all their tensors jointly, with coefficients of one sign for each of them.
JOINT = {
    *("add", "radd", "sub", "rsub", "subtract", "neg", "negative", "clone", "contiguous", "detach", "alias"),
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "permute", "transpose", "swapaxes"),
    *("swapdims", "movedim", "moveaxis", "T", "mT", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to"),
    *("repeat", "tile", "flip", "roll", "narrow", "select", "chunk", "split", "tensor_split", "unbind"),
    *("index_select", "getitem", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "ravel", "unfold", "t"),
    *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "sum", "mean", "constant_pad_nd"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "where", "masked_fill", "interpolate", "upsample"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
}
#: Products: affine if one factor alone depends on the inputs; True where that must be the first argument.
ONE_FACTOR = {
    **dict.fromkeys(["mul", "multiply", "rmul", "matmul", "rmatmul", "mm", "bmm", "mv", "einsum"], False),
    **dict.fromkeys(["div", "divide", "truediv", "true_divide", "linear"], True),
    **dict.fromkeys([f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)], True),
}
_LINEAR = ("linear", "bilinear", "trilinear")
#: Of functions that are affine with some of their arguments only: whether these are such.
ALLOWED: dict[str, Callable[[Call], bool]] = {
    "view": lambda call: not any(isinstance(a, torch.dtype) for a in (*call.args, *call.kwargs.values())),
    **dict.fromkeys(["div", "divide", "true_divide"], lambda call: call.kwargs.get("rounding_mode") is None),
    **dict.fromkeys(  # not bicubic, whose weights have both signs
        ["interpolate", "upsample"],
        lambda call: call.argument(3, "mode", "nearest") in {"nearest", "nearest-exact", "area", *_LINEAR},
    ),
}
#: Change the dtype alone.
RECAST = {"to", "float", "double", "half", "bfloat16", "type", "type_as"}


def _leaky_relu(_: Any, call: Call) -> Tensor:
    z, slope = call.argument(0, "input"), call.argument(1, "negative_slope", 0.01)
    return z * slope + z.relu() * (1 - slope)


def _prelu(_: Any, call: Call) -> Tensor:
    z, slope = call.argument(0, "input"), call.argument(1, "weight")
    slope = slope.detach().double().reshape(-1, *[1] * (z.ndim - 2)) if z.ndim > 1 else slope.detach().double()
    return z * slope.to(z.dtype) + z.relu() * (1 - slope).to(z.dtype)


def _clip(z: Tensor, low: Any, high: Any) -> Tensor:
    low = None if isinstance(low, float) and low == -math.inf else low
    high = None if isinstance(high, float) and high == math.inf else high
    if low is not None and high is not None and bool(torch.as_tensor(low > high).any()):
        raise NotPiecewiseLinear("forward_func: clips with a minimum above the maximum")
    below = z if low is None else (z - low).relu() + low
    return below if high is None else below - (z - high).relu()


def _clamp(_: Any, call: Call) -> Tensor:
    low, high = call.argument(1, "min"), call.argument(2, "max")
    for bound in (low, high):
        _constant_only(_, call, bound)
    return _clip(call.argument(0, "input"), low, high)


def _clamp_min(tracer: Any, call: Call) -> Tensor:
    _constant_only(tracer, call, low := call.argument(1, "min"))
    return _clip(call.argument(0, "input"), low, None)


def _clamp_max(tracer: Any, call: Call) -> Tensor:
    _constant_only(tracer, call, high := call.argument(1, "max"))
    return _clip(call.argument(0, "input"), None, high)


def _constant_only(tracer: Any, call: Call, bound: Any) -> None:
    if isinstance(bound, Tensor) and tracer.node(bound) is not None:
        raise NotPiecewiseLinear(f"forward_func: uses '{call.name}' with bounds that depend on the inputs")


def _hardtanh(_: Any, call: Call) -> Tensor:
    return _clip(call.argument(0, "input"), call.argument(1, "min_val", -1.0), call.argument(2, "max_val", 1.0))


def _hardsigmoid(_: Any, call: Call) -> Tensor:
    return _clip(call.argument(0, "input") / 6 + 0.5, 0.0, 1.0)


def _absolute(_: Any, call: Call) -> Tensor:
    z = call.argument(0, "input")
    return z.relu() * 2 - z


def _softshrink(_: Any, call: Call) -> Tensor:
    z, width = call.argument(0, "input"), call.argument(1, "lambd", 0.5)
    return (z - width).relu() - (-z - width).relu()


def _threshold(_: Any, call: Call) -> Tensor:
    z, at, value = call.argument(0, "input"), call.argument(1, "threshold"), call.argument(2, "value")
    if at != value:
        raise NotPiecewiseLinear("forward_func: uses 'threshold', which jumps unless its value is its threshold")
    return _clip(z, at, None)


def _batch_norm(_: Any, call: Call) -> Tensor:
    z = call.argument(0, "input")
    mean, variance, weight, bias = (
        call.argument(i, name) for i, name in enumerate(["running_mean", "running_var", "weight", "bias"], 1)
    )
    if call.argument(5, "training", False) or mean is None:
        raise NotPiecewiseLinear(
            "forward_func: uses batch norm in training mode, so a sample's scores depend on the other samples; "
            "use running statistics"
        )
    scale = (variance.double() + call.argument(7, "eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight.detach().double()
    shift = -mean.double() * scale + (0 if bias is None else bias.detach().double())
    broadcast = (-1, *[1] * (z.ndim - 2))
    return (z.double() * scale.reshape(broadcast) + shift.reshape(broadcast)).to(z.dtype)


def _added_product(_: Any, call: Call) -> Tensor:
    a, b = (call.argument(i, f"{'batch' if call.name == 'baddbmm' else 'mat'}{i}") for i in (1, 2))
    return call.argument(0, "input") * call.kwargs.get("beta", 1) + (a @ b) * call.kwargs.get("alpha", 1)


def _setitem(_: Any, call: Call) -> Tensor:
    z, index, value = call.args
    place = torch.full(z.shape, -1, device=z.device)  # where in ``value`` an entry comes from
    slots = place[index]
    if not slots.numel():
        return z.clone()
    place[index] = torch.arange(slots.numel(), device=z.device).reshape(slots.shape)
    value = value if isinstance(value, Tensor) else torch.tensor(value, device=z.device)
    value = value.to(z.dtype).broadcast_to(slots.shape).reshape(-1)
    return torch.where(place < 0, z, value[place.clamp(min=0)])


def _dropout(_: Any, call: Call) -> Tensor:
    if call.argument(2, "training", call.kwargs.get("train", call.name != "alpha_dropout")):
        raise NotPiecewiseLinear(f"forward_func: uses '{call.name}' in training mode; expected eval mode")
    return call.argument(0, "input").clone()


def _pad(_: Any, call: Call) -> Tensor:
    mode = call.argument(2, "mode", "constant")
    if mode != "constant":
        raise NotPiecewiseLinear(f"forward_func: uses 'pad' with mode {mode!r}; expected 'constant'")
    z, pad = call.argument(0, "input"), list(call.argument(1, "pad"))
    return torch.constant_pad_nd(z, pad, call.argument(3, "value") or 0.0)


REWRITES: dict[str, Callable[[Any, Call], Tensor]] = {
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "hardtanh": _hardtanh,
    "relu6": lambda _, call: _clip(call.argument(0, "input"), 0.0, 6.0),
    "hardsigmoid": _hardsigmoid,
    **dict.fromkeys(["abs", "absolute"], _absolute),
    "softshrink": _softshrink,
    "threshold": _threshold,
    **dict.fromkeys(["maximum", "fmax"], maximum),
    **dict.fromkeys(["minimum", "fmin"], minimum),
    "max": largest,
    "amax": amax,
    **dict.fromkeys(["max_pool1d", "max_pool2d", "max_pool3d"], max_pool),
    "batch_norm": _batch_norm,
    **dict.fromkeys(["addmm", "baddbmm"], _added_product),
    "setitem": _setitem,
    **dict.fromkeys(["dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"], _dropout),
    "pad": _pad,
}
