"""The piecewise linear network behind a forward pass, by looking at every torch function that it calls.

What is not known to be piecewise linear is refused by name: an allow-list, because what a missed operation would make
of a certificate is wrong without a word.
"""

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

from captum_alignment._core._constants import Call, map_tensors, tensors_in
from captum_alignment._core._gradients import for_autograd
from captum_alignment._core._inputs import ForwardFunc, Tensors
from captum_alignment._core._piecewise import Affine, Node, NotPiecewiseLinear, Piecewise, Slot, check_precision
from captum_alignment._core._piecewise_rules import ALLOWED, FREE, JOINT, ONE_FACTOR, PROPERTIES, RECAST, REWRITES
from captum_alignment._core._scores import run_scores

#: Differences that are rounding, between the traced network in float64 and the model, as shares of the largest score.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
_IN_PLACE_OPERATORS = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div"}


def trace(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Piecewise:
    """The network of one sample (1, ...), checked against the model at the sample and at other points.

    Raises:
        NotPiecewiseLinear: a function that is not known; values that leave torch or enter it unseen; no float64.
    """
    check_precision(inputs[0].device)
    with torch.inference_mode(False), torch.enable_grad():
        args = for_autograd(additional_forward_args)
        leaves = tuple(x.detach().clone().requires_grad_() for x in for_autograd(inputs))
        tracer = _Tracer()
        tracer.network.inputs.extend(tracer.add(leaf, Node((), leaf.shape)) for leaf in leaves)
        with tracer:
            scores = run_scores(forward_func, leaves, args)
        output = tracer.node(scores)
        if output is None:
            raise NotPiecewiseLinear("forward_func: its scores do not depend on the inputs through torch functions")
        tracer.network.output = output
        _check(tracer.network, forward_func, tuple(x.detach() for x in leaves), args)
    return tracer.network


@torch.no_grad()
def _check(network: Piecewise, forward_func: ForwardFunc, inputs: Tensors, args: Any) -> None:
    """Against branches, caches and values that reach the scores unseen."""
    generator = torch.Generator().manual_seed(0)
    for scale in (0.0, 0.03, 1.0):
        noise = [torch.randn(x.shape, generator=generator).to(x) for x in inputs]
        point = tuple(x + scale * (x.abs().mean() + 0.1) * e for x, e in zip(inputs, noise, strict=True))
        expected = run_scores(forward_func, point, args).double()
        found = network.values(tuple(x.double() for x in point))[network.output]
        finite = expected.isfinite()
        size = expected[finite].abs().max() if finite.any() else 0
        close = (found - expected).abs() <= _ROUNDING.get(inputs[0].dtype, 0.1) * size
        if not bool((close | (found == expected)).all()):
            raise NotPiecewiseLinear(
                "forward_func: the functions that it was seen to call do not give its scores "
                "(values from outside torch, or code that depends on the values?)"
            )
    for node in network.nodes:
        if node.affine is not None and not node.affine.is_affine(generator, inputs[0].device):
            raise _refused(node.affine.name)


class _Tracer(TorchFunctionMode):
    """Records what depends on the inputs; the tensors that do are known by their identity."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Piecewise()
        self._known: dict[int, tuple[Tensor, int, int]] = {}  # the tensor is kept, or its id would be given again
        self._storages: set[int] = set()

    def add(self, tensor: Tensor, node: Node) -> int:
        self.network.nodes.append(node)
        self._learn(tensor, len(self.network.nodes) - 1)
        return len(self.network.nodes) - 1

    def node(self, tensor: Tensor) -> int | None:
        """The node whose value ``tensor`` is; None for a constant."""
        if id(tensor) not in self._known:
            if (tensor.requires_grad and not tensor.is_leaf) or _storage(tensor) in self._storages:
                raise NotPiecewiseLinear(
                    "forward_func: computes something that depends on inputs or parameters in a way that is not seen "
                    "(TorchScript, a custom autograd function, tensors or parameters made outside?)"
                )
            return None
        _, node, version = self._known[id(tensor)]
        if version != _version(tensor):
            raise NotPiecewiseLinear("forward_func: works in place on a tensor of which it uses a view as well")
        return node

    def relu_of(self, z: Tensor, *, inside: bool = False) -> Tensor:
        """For rules: the ReLU of ``z``; ``inside`` a maximum."""
        result = z.relu()
        node = self.node(result)
        if inside and node is not None:
            self.network.inside.add(node)
        return result

    def begin_maximum(self, candidates: Tensor) -> None:
        """For rules: the maximum of ``candidates`` along dimension 0 follows."""
        node = self.node(candidates)
        if node is not None:
            self.network.maxima.append(node)

    def _relu(self, z: Tensor) -> Tensor:
        parent = self.node(z)
        result = z.relu()
        if parent is not None:
            self.add(result, Node((parent,), result.shape))
        return result

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call(func, args, kwargs or {})
        if _property(call) in PROPERTIES or call.name in FREE:
            return call.run()
        recast = call.name in RECAST and self.node(call.args[0]) is None  # by the dtype of what is known
        if recast or all(self.node(t) is None for t in call.tensors()):
            with torch.no_grad():  # of what does not require grad, constants can be told from what is unseen
                return call.run()
        if isinstance(func, (OpOverload, OpOverloadPacket)) or call.kwargs.get("out") is not None:
            raise _refused(call.name)
        target = call.args[0] if call.args and _is_in_place(call) else None
        if target is None:
            return self._apply(call)
        if self.node(target) is None or target.is_inference():
            raise _refused(f"{call.name}' in place on a tensor that does not depend on the inputs, '{call.name}")
        result = self._apply(_out_of_place(call))
        if result.shape != target.shape:
            raise _refused(f"{call.name}' in place, '{call.name}")
        with torch.no_grad():
            target.copy_(result)
        self._learn(target, self._known[id(result)][1])
        return target

    def _apply(self, call: Call) -> Any:
        name = _property(call) or call.name
        if name in ALLOWED and not ALLOWED[name](call):
            raise _refused(f"{name}' with such arguments, '{name}")
        if name == "relu":
            return self._relu(call.argument(0, "input"))
        if name in REWRITES:
            with self:
                result = REWRITES[name](self, call)
        elif name in RECAST:
            result = call.run()
            if isinstance(result, Tensor):
                result = self._affine(Call(torch.clone, (call.args[0],), {}), result)
            elif not isinstance(result, str):  # the name of the type; a number would be what code can depend on
                raise _refused(name)
        elif name in JOINT:
            result = self._affine(call, call.run())
        elif name in ONE_FACTOR and self._has_one_factor(call):
            result = call.run()
            known = [t for t in call.tensors() if self.node(t) is not None]
            if all(bool(t.isfinite().all()) for t in known) and not bool(result.isfinite().all()):
                raise NotPiecewiseLinear(
                    f"forward_func: uses '{name}' with a factor or divisor that is not finite or 0"
                )
            result = self._affine(call, result)
        else:
            raise _refused(name)
        return result

    def _affine(self, call: Call, result: Any) -> Any:
        parents: list[int] = []

        def slot(tensor: Tensor) -> Any:
            node = self.node(tensor)
            if node is None:
                constant = tensor.detach()
                return constant.double() if constant.is_floating_point() else constant
            parents.append(node)
            return Slot(len(parents) - 1)

        arguments = map_tensors(slot, (call.args, {k: v for k, v in call.kwargs.items() if k != "dtype"}))
        shapes = [self.network.nodes[p].shape for p in parents]
        several = not isinstance(result, Tensor)
        for i, tensor in enumerate(result if several else [result]):
            if not tensor.is_floating_point():
                raise _refused(f"{call.name}' to {tensor.dtype}, '{call.name}")
            if id(tensor) in self._known:  # a reshape that changed nothing returns its argument
                continue
            function = Tensor.reshape if call.name == "view" else call.func  # other layouts in memory than the model's
            affine = Affine(function, arguments, i if several else None, shapes)
            self.add(tensor, Node(tuple(parents), tensor.shape, affine))
        return result

    def _has_one_factor(self, call: Call) -> bool:
        """Whether just one factor depends on the inputs, and no divisor."""
        where = [i for i, a in enumerate(call.args) for t in tensors_in(a) if self.node(t) is not None]
        named = any(self.node(t) is not None for t in tensors_in(call.kwargs))
        first = ONE_FACTOR[call.name]
        return not named and len(where) == 1 and (not first or where == [0])

    def _learn(self, tensor: Tensor, node: int) -> None:
        self._known[id(tensor)] = (tensor, node, _version(tensor))
        if pointer := _storage(tensor):
            self._storages.add(pointer)


def _storage(tensor: Tensor) -> int:
    """Where the values of ``tensor`` lie; 0 where that is not one place."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _property(call: Call) -> str | None:
    """The name of the attribute that is read, if that is what the call does."""
    if getattr(call.func, "__name__", "") != "__get__":
        return None
    return getattr(getattr(call.func, "__self__", None), "__name__", "attribute")


def _is_in_place(call: Call) -> bool:
    name = getattr(call.func, "__name__", "")
    if name in _IN_PLACE_OPERATORS or name == "__setitem__" or (name.endswith("_") and not name.startswith("__")):
        return True
    place = {"relu": 1, "relu6": 1, "leaky_relu": 2, "hardtanh": 3, "dropout": 3, "threshold": 3, "hardsigmoid": 1}
    return bool(call.argument(place.get(call.name, 99), "inplace", False))


def _out_of_place(call: Call) -> Call:
    name = getattr(call.func, "__name__", "")
    if name == "__setitem__":
        return call
    if name in _IN_PLACE_OPERATORS or name.endswith("_"):
        plain = getattr(Tensor, _IN_PLACE_OPERATORS.get(name, name.rstrip("_")), None)
        if plain is None:
            raise _refused(name)
        return Call(plain, call.args, call.kwargs)
    values = [a if not isinstance(a, bool) or i < 1 else False for i, a in enumerate(call.args)]
    return Call(call.func, tuple(values), {k: v for k, v in call.kwargs.items() if k != "inplace"})


def _refused(name: str) -> NotPiecewiseLinear:
    return NotPiecewiseLinear(
        f"forward_func: uses '{name}', which is not known to be piecewise linear; expected affine layers, (leaky) "
        "ReLU, clips, max and average pooling, skips and batch norm in eval mode"
    )
