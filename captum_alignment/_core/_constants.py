"""The additive part of one torch function: what it returns beyond its linear action on what depends on the input."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: (the tensor that names the term or None, its value broadcastable to what the function returns)
Constant = tuple[Tensor | None, Tensor]


class Call(NamedTuple):
    """A torch function about to be called; the tensors among its arguments that require grad depend on the input."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The function's name; its in-place and operator forms share it."""
        return getattr(self.func, "__name__", "").strip("_")

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def tensors(self) -> Iterator[Tensor]:
        return tensors_in((self.args, self.kwargs))

    def map(self, function: Callable[[Tensor], Any]) -> "Call":
        return Call(self.func, *map_tensors(function, (self.args, self.kwargs)))

    def run(self) -> Any:
        return self.func(*self.args, **self.kwargs)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to every tensor in its lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([map_tensors(function, item) for item in value])
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in the lists, tuples and dictionaries of ``value``."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


@torch.no_grad()
def constants(call: Call) -> list[Constant]:
    """The additive terms of ``call``, to be asked before it runs, for it may work in place.

    Exact for functions that are piecewise linear in the arguments that require grad; of others (layer norm) the bias.
    """
    rule = _RULES.get(call.name)
    return [] if rule is None else rule(call)


def _bias(call: Call) -> list[Constant]:
    """The bias argument, shaped to broadcast along the channels."""
    name = call.name
    bias = call.argument(3 if name in ("bilinear", "layer_norm", "group_norm") else 2, "bias")
    if not isinstance(bias, Tensor) or bias.requires_grad:
        return []
    trailing = 0
    if name.startswith("conv"):
        trailing = int(name[-2])
    elif name == "group_norm":
        trailing = call.argument(0, "input").ndim - 2
    return [(bias, bias.detach().reshape(*bias.shape, *[1] * trailing))]


def _added_to_product(call: Call) -> list[Constant]:
    added = call.argument(0, "input")
    return [] if added.requires_grad else [(added, added.detach() * call.kwargs.get("beta", 1))]


def _normalized_zero(call: Call) -> list[Constant]:
    """beta - mu·gamma/sqrt(var + eps), the value at 0; at two positions, because one has no variance."""
    if call.name == "batch_norm" and call.argument(5, "training"):
        raise ValueError(
            "forward_func: uses batch norm in training mode, so a sample's scores depend on the other samples; "
            "use running statistics"
        )
    x, *rest = call.args
    zero = x.new_zeros(1, x.shape[1], *[2] * (x.ndim - 2))
    value = call.func(zero, *rest, **call.kwargs)
    return [(None, value.detach()[(..., *[slice(1)] * (x.ndim - 2))])]


def _value_at_zero(call: Call) -> list[Constant]:
    """For functions linear in all their tensors together: the value where those that depend on the input are 0."""
    own = [t for t in call.tensors() if t.is_floating_point() and not t.requires_grad]
    skips = all(isinstance(a, Tensor) for a in call.args) or (call.name == "pad" and not call.kwargs.get("value"))
    if not own and skips:  # a skip connection, zero padding
        return []
    return [(own[0] if len(own) == 1 else None, _keeping(call, lambda t: not t.requires_grad))]


def _joined(call: Call) -> list[Constant]:
    own = [t for t in call.tensors() if not t.requires_grad]
    return [(source, _keeping(call, lambda t, source=source: t is source)) for source in own]


def _keeping(call: Call, keep: Callable[[Tensor], bool]) -> Tensor:
    """The value with 0 for the tensors not to ``keep``; the others are cloned, for the function may work in place."""
    call = call.map(lambda t: t.clone() if keep(t) else torch.zeros_like(t))
    result = call.run()
    result = call.args[0] if result is None else result  # __setitem__ returns nothing
    return torch.where(result.isinf(), 0, result)  # a mask's infinities stop the gradient


def _clipped(call: Call) -> list[Constant]:
    """`_off_tangent` of the usual case, at half its cost."""
    low, high = 0, 6
    if call.name == "hardtanh":
        low, high = call.argument(1, "min_val", -1), call.argument(2, "max_val", 1)
    x = call.args[0].detach()
    constant = torch.where(x >= high, x.new_full((), high), x.new_zeros(()))
    return [(None, constant if low == 0 else torch.where(x <= low, low, constant))]


def _off_tangent(call: Call) -> list[Constant]:
    """f(x) - f'(x) x of an elementwise function, whose pieces may be constant or affine."""
    if call.name in ("max", "min") and not isinstance(call.argument(1, "other"), Tensor):
        return []  # a reduction, which is homogeneous
    shape = torch.broadcast_shapes(*(t.shape for t in call.tensors()))
    in_place = call.kwargs.get("inplace") or call.func.__name__.endswith("_")
    leaves: list[Tensor] = []

    def leaf(t: Tensor) -> Tensor:
        if not t.requires_grad:
            return t
        leaves.append(t.detach().expand(shape).requires_grad_())
        return leaves[-1].clone() if in_place else leaves[-1]

    with torch.enable_grad():
        value = call.map(leaf).run()
        slopes = torch.autograd.grad(value, leaves, value.detach().new_ones(()).expand(shape))
    constant = value.detach()
    for x, slope in zip(leaves, slopes, strict=True):
        constant.addcmul_(x.detach(), slope, value=-1)
    return [(None, constant)]


_RULES: dict[str, Callable[[Call], list[Constant]]] = {
    **dict.fromkeys(["linear", "bilinear", "layer_norm", "group_norm"], _bias),
    **dict.fromkeys([f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)], _bias),
    **dict.fromkeys(["addmm", "addmv", "addbmm", "baddbmm"], _added_to_product),
    **dict.fromkeys(["batch_norm", "instance_norm"], _normalized_zero),
    **dict.fromkeys(["add", "sub", "rsub", "subtract", "addcmul", "addcdiv", "lerp", "where", "pad"], _value_at_zero),
    **dict.fromkeys(["setitem", "copy", "fill", "masked_fill", "masked_scatter", "index_put"], _value_at_zero),
    **dict.fromkeys(["index_fill", "index_copy", "index_add", "scatter", "scatter_add"], _value_at_zero),
    **dict.fromkeys(["slice_scatter", "select_scatter", "constant_pad_nd"], _value_at_zero),
    **dict.fromkeys(["cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"], _joined),
    **dict.fromkeys(["relu6", "hardtanh"], _clipped),
    **dict.fromkeys(
        ["clamp", "clip", "clamp_min", "clamp_max", "threshold", "hardsigmoid", "softshrink"], _off_tangent
    ),
    **dict.fromkeys(["maximum", "minimum", "fmax", "fmin", "max", "min"], _off_tangent),
}
