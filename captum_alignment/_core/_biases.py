"""Every input-independent term that a network adds, with its contribution to a score, from one forward pass.

The scores of a piecewise linear network are Psi = <x, ∇Psi> + Σ <c, ∂Psi/∂c> over the constants c that are added
somewhere between input and score (Etmann et al. 2019, Theorem 1; Srinivas & Fleuret 2019). Here every torch function
that the forward pass calls is looked at: where one of its arguments depends on the input and the function adds a
constant, a hook on what it returns waits for the gradient, which is ∂Psi/∂c.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_alignment._core._constants import Call, constants, map_tensors, tensors_in
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import ForwardFunc, Tensors, accumulation_dtype, batches, per_sample_dot
from captum_alignment._core._model import without_recomputing
from captum_alignment._core._names import find_owner, names_by_storage, storage, unbound

#: From a constant and the gradient it broadcasts to, samples first, to whatever is wanted of <c, ∂Psi/∂c>.
Reduce: TypeAlias = Callable[[Tensor, Tensor], Tensor]

#: Functions that use their biases out of sight, inside.
_CLOSED = {"multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu"}
#: What asks for the tensor itself, not for its value.
_IDENTITY = {"__hash__", "__set__", "__delete__"}


class Trace:
    """A `ScoreGraph` that knows the constants added on the way.

    Attributes:
        graph: its scores, of one forward pass. moved: whether samples left the first dimension on the way, so that
            contributions cannot be told apart by sample (never for a batch of one).
        names: the terms in the order in which they were first added. A parameter or buffer has its qualified name; what
            else a module adds is called "module (function)"; what is added outside of it, "forward_func".
    """

    def __init__(self, forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> None:
        self._recorder = _Recorder()
        tracer = _Tracer(forward_func, len(inputs[0]), self._recorder)

        def traced(*args: Any) -> Any:
            if tracer.done:  # the graph may run parts of the batch again to find a rival
                return forward_func(*args)
            extras = map_tensors(Tensor.detach, args[len(inputs) :])
            with tracer.watching(args[: len(inputs)]):
                return forward_func(*args[: len(inputs)], *extras)

        self.graph = ScoreGraph(traced, inputs, additional_forward_args)
        self.moved = tracer.moved
        self.names, self._named = tuple(self._recorder.names), set(tracer.named.values())

    def gradient(self, weights: Tensor, reduce: Reduce) -> tuple[Tensors, dict[str, Tensor]]:
        """∇_x <weights, scores>, and of each name the sum of what ``reduce`` returns: one backward pass.

        Constants that the scores do not use are absent, and those without a name of their own that contribute 0.
        """
        self._recorder.reduce, self._recorder.values = reduce, {}
        try:
            gradient = self.graph.gradient(weights)
        finally:
            self._recorder.reduce = None
        found = self._recorder.values
        shown = [name for name in self.names if name in found and (name in self._named or found[name].any())]
        return gradient, {name: found[name] for name in shown}


def traces(forward_func: ForwardFunc, size: int | None, inputs: Tensors, *per_sample: Any) -> Iterator[tuple[Any, ...]]:
    """(Trace, …) of at most ``size`` samples, or of one after the other where samples leave the first dimension.

    ``per_sample`` is sliced as by `batches`; its first entry are the ``additional_forward_args``.
    """
    for x, args, *rest in batches(size, inputs, *per_sample):
        trace = Trace(forward_func, x, args)
        if not trace.moved:
            yield (trace, *rest)
            continue
        del trace
        for sample, its_args, *its_rest in batches(1, x, args, *rest):
            yield (Trace(forward_func, sample, its_args), *its_rest)


def contribution(constant: Tensor, gradient: Tensor, n: int) -> Tensor:
    """<c, ∂Psi/∂c> (n,) per sample, for a gradient whose first dimension runs over the samples, slowest."""
    if constant.shape == gradient.shape:
        return per_sample_dot((constant.reshape(n, -1),), (gradient.reshape(n, -1),))
    dtype = accumulation_dtype(constant.dtype, gradient.dtype)
    constant = constant[(None,) * (gradient.ndim - constant.ndim)].to(dtype)
    shared = [d for d in range(1, gradient.ndim) if constant.shape[d] == 1 != gradient.shape[d]]
    if shared:
        gradient = gradient.sum(shared, keepdim=True, dtype=dtype)
    return (constant * gradient).reshape(n, -1).sum(1)


class _Recorder:
    """What the hooks write into; it must not hold the graph, or the two would keep each other alive."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.values: dict[str, Tensor] = {}
        self.reduce: Reduce | None = None

    def watch(self, name: str, constant: Tensor, result: Tensor) -> None:
        self.names[name] = None

        def record(gradient: Tensor) -> None:
            if self.reduce is not None:
                found = self.reduce(constant, gradient)
                self.values[name] = self.values[name] + found if name in self.values else found

        result.register_hook(record)


class _Tracer(TorchFunctionMode):
    """Makes ``requires_grad`` mean *depends on the input*, and watches every constant that meets what does."""

    def __init__(self, forward_func: ForwardFunc, n: int, recorder: _Recorder) -> None:
        super().__init__()
        self.moved = self.done = False
        self._owner, self._n, self._recorder = find_owner(forward_func), n, recorder
        # A method of the module that names the terms runs without its hooks.
        self._bare = self._owner is not None and isinstance(unbound(forward_func), nn.Module)
        self.named = {} if self._owner is None else names_by_storage(self._owner)
        self._path: list[str] = []
        self._inputs: Tensors = ()
        self._zero: Tensor | None = None

    @contextmanager
    def watching(self, inputs: Tensors) -> Iterator[None]:
        """Watch what is called inside."""
        self._inputs = inputs
        with ExitStack() as stack:
            for name, module in () if self._owner is None else self._owner.named_modules():
                for handle in self._hooks(name, module):
                    stack.callback(handle.remove)
            stack.enter_context(self)
            yield
        self._inputs, self._zero, self.done = (), None, True

    def _hooks(self, name: str, module: nn.Module) -> Iterator[Any]:
        thread = threading.get_ident()  # others may run the same modules meanwhile

        def enter(*_: Any) -> None:
            if threading.get_ident() == thread:
                self._path.append(name)

        def leave(*_: Any) -> None:
            if threading.get_ident() == thread:
                self._path.pop()

        yield module.register_forward_pre_hook(enter, prepend=True)
        yield module.register_forward_hook(leave, always_call=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _IDENTITY:
            return func(*args, **(kwargs or {}))
        call = Call(func, args, kwargs or {}).map(self._without_parameters)
        source = next((t for t in call.tensors() if t.requires_grad), None)
        if source is None:
            return call.run()
        if call.name in _CLOSED:
            call = call.map(lambda t: self._opened(t, call.name))
        terms = constants(call)
        shape = source.shape
        with without_recomputing():  # which would see other tensors
            result = call.run()
        for named, constant in terms:
            self._watch(call, named, constant, result)
        self.moved = self.moved or (self._n > 1 and any(_is_moved(t, shape) for t in tensors_in(result)))
        return result

    def _without_parameters(self, tensor: Tensor) -> Tensor:
        """Parameters require grad too, but do not depend on the input."""
        foreign = tensor.requires_grad and tensor.is_leaf and not any(tensor is x for x in self._inputs)
        return tensor.detach() if foreign else tensor

    def _opened(self, tensor: Tensor, name: str) -> Tensor:
        """A bias used inside ``name``, with a zero added that depends on the input: its gradient can be watched."""
        if tensor.requires_grad or tensor.ndim != 1 or not tensor.is_floating_point():
            return tensor
        if self._zero is None:
            self._zero = self._inputs[0].flatten()[:0].sum()
        bias = tensor[None]
        watched = bias + self._zero.to(bias)
        self._recorder.watch(self._name(tensor, name), bias, watched)
        self.moved = self.moved or self._n > 1  # one gradient for all samples
        return watched[0]

    def _watch(self, call: Call, source: Tensor | None, constant: Tensor, result: Any) -> None:
        changed = call.args[0] if call.args and (result is None or result is call.args[0]) else None
        result = result if changed is None else changed  # __setitem__ returns nothing
        if not result.requires_grad:
            return
        if changed is not None and changed._base is not None:
            # Written through a view: the graph goes on from the tensor behind it.
            result, constant = changed._base, _behind(changed, constant)
        self.moved = self.moved or (self._n > 1 and (result.ndim == 0 or len(result) % self._n != 0))
        self._recorder.watch(self._name(source, call.name), constant, result)

    def _name(self, source: Tensor | None, func: str) -> str:
        added = f"{self._path[-1] if self._path else ''} ({func})".strip()
        return self.named.get(storage(source), added if self._path or self._bare else "forward_func")


def _is_moved(result: Tensor, source: torch.Size) -> bool:
    """Whether samples, the slowest dimension of what had the shape ``source``, may no longer be that of ``result``."""
    if not result.requires_grad or result.ndim == 0:
        return False
    transposed = any(n > 1 and s > result.stride(0) for n, s in zip(result.shape, result.stride(), strict=True))
    # Joined, cut, repeated or stacked along them; a reshape keeps their order.
    changed = result.ndim > len(source) or len(result) != source[0]
    return transposed or (changed and result.numel() != source.numel())


def _behind(view: Tensor, constant: Tensor) -> Tensor:
    """``constant``, broadcast to ``view``, as a tensor of the shape of the base, 0 elsewhere."""
    base = view._base
    assert base is not None
    whole = torch.empty_strided(base.shape, base.stride(), dtype=constant.dtype, device=constant.device).zero_()
    part = whole.as_strided(view.shape, view.stride(), view.storage_offset() - base.storage_offset())
    part.copy_(constant)
    return whole
