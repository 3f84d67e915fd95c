"""The border, first part: what stands behind a user's callable, and how it is called."""

import dis
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_alignment._core._arguments import Shared
from captum_alignment._core._inputs import ForwardFunc, Tensors

#: How deep containers and objects around a module are looked into.
_DEPTH = 6


def modules_behind(forward_func: Any) -> list[nn.Module]:
    """The outermost modules that a callable can run, as far as they can be seen.

    Itself, the owner of a method, what a partial, a Foolbox model or another object holds, what a function closes over,
    has as a default or reads as a global, and what lists, tuples and dictionaries among these contain.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()

    def look(value: Any, depth: int) -> None:
        if isinstance(value, nn.Module):
            found.setdefault(id(value), value)
        elif depth and id(value) not in seen and not isinstance(value, (Tensor, str, bytes, type)):
            seen.add(id(value))
            for part in _parts(value):
                look(part, depth - 1)

    look(forward_func, _DEPTH)
    return list(found.values())


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        used = [value.__globals__[name] for name in _global_names(value.__code__) if name in value.__globals__]
        # Of the globals only what can be called or holds something: an imported package is no part of a model.
        return [*cells, *(value.__defaults__ or ()), *(g for g in used if not inspect.ismodule(g))]
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.ismodule(value) or inspect.isbuiltin(value):
        return []
    held = [getattr(value, name, None) for name in ("func", "args", "keywords", "__wrapped__", "_model")]
    return [*held, *getattr(value, "__dict__", {}).values()]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a variable that is assigned later
        return False


def _global_names(code: CodeType) -> set[str]:
    """The names that a function and those inside it read as globals; attributes may be called the same."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def is_quantised(forward_func: Any) -> bool:
    """Whether a module behind ``forward_func`` computes with integers, which have no gradient."""
    parts = (part for module in modules_behind(forward_func) for part in module.modules())
    return any("quantized" in type(part).__module__ for part in parts)


def no_gradient(forward_func: Any, name: str = "forward_func") -> str:
    """What to say of a model whose scores have no gradient."""
    cause = "it is quantised" if is_quantised(forward_func) else "a detach, no_grad or argmax inside?"
    return f"{name}: its scores do not depend on the inputs through autograd ({cause}), so they have no gradient"


def call(forward_func: ForwardFunc, inputs: Tensors, additional_forward_args: Any = None) -> Any:
    """What the model returns for ``inputs``, however it works inside.

    It gets copies, because its first operation may work in place, and compiled code runs uncompiled, because its
    backward allows one call alone.
    """
    copies = tuple(x.clone() for x in inputs)
    args = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
    with _uncompiled():
        return forward_func(*copies, *map(_opened, () if additional_forward_args is None else args))


def _opened(arg: Any) -> Any:
    """An additional argument as the model sees it: a copy, without the mark of what samples share."""
    arg = arg.value if isinstance(arg, Shared) else arg
    return arg.clone() if isinstance(arg, Tensor) else arg


class _Together:
    """A context that is global to the process: of the threads in it, the first enters it and the last one leaves."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0
        self._context: AbstractContextManager[Any] = nullcontext()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._context = self._make()
                self._context.__enter__()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._context.__exit__(None, None, None)


_eager = _Together(lambda: torch.compiler.set_stance("force_eager"))


def _uncompiled() -> AbstractContextManager[None]:
    return _eager() if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def _plain_kernels() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


#: Inside, attention keeps to its plain kernels: the others have neither a forward-mode nor a second derivative.
plain_attention = _Together(_plain_kernels)


def without_recomputing() -> AbstractContextManager[Any]:
    """What gradients need is kept, also by checkpointed code, which would otherwise run its functions again for it."""
    return saved_tensors_hooks(_keep, _kept)


def _keep(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor.detach(), tensor._version  # detached, or what holds its own graph would never be freed


def _kept(saved: tuple[Tensor, int]) -> Tensor:
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError("forward_func: an operation in place has overwritten what a gradient needs")
    return tensor
