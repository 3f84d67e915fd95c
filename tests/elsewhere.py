"""An accelerator that is not there: CPU tensors that say they are on the device "elsewhere", and what they would cost.

As a script it runs the checks below on the CPU and elsewhere, and prints, as JSON, what each returned and how often the
host waited for the device. As on a real device, tensors of two devices do not mix, and as on MPS there is no float64.
A process of its own, because torch's threads for such a device do not survive the interpreter.
"""

import json
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

#: The host waits for these, and for indexing by a mask, whose number of hits it must know.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}
#: These take tensors of two devices: the first two copy, the others take indices of the host.
CROSSES = {"_to_copy", "copy_", "lift_fresh", "detach", "alias", "index", "index_put", "index_put_", "_index_put_impl_"}
waits: Counter[str] = Counter()
#: Forward passes of a model that went through `move`.
calls: Counter[str] = Counter()


class Backend:
    """What torch asks of ``torch.elsewhere``."""

    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.float16, torch.bfloat16])


class Elsewhere(torch.Tensor):
    """A tensor of the device, which computes with ``here``, a tensor of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]
    here: torch.Tensor

    @staticmethod
    def __new__(cls, here):
        if here.dtype == torch.float64:
            raise TypeError("the device has no float64")
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), dtype=here.dtype, device=torch.device("elsewhere", 0)
        )
        made.here = here
        return made

    def __repr__(self, *, tensor_contents=None):
        return f"Elsewhere({self.here})"

    def untyped_storage(self):
        return self.here.untyped_storage()

    def tolist(self):
        count_wait("tolist")
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # pyright: ignore
        return run(func, args, kwargs or {})


Elsewhere.__module__ = "torch"  # eagerpy goes by the module's name


class Mode(TorchDispatchMode):
    """Sees factories, which have no tensor to be dispatched by."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def count_wait(name: str) -> None:
    package = f"{os.sep}captum_alignment{os.sep}"
    ours = [frame for frame in traceback.extract_stack() if package in frame.filename]
    where = f"{ours[-1].filename.split(package)[-1]}:{ours[-1].lineno}" if ours else "outside"
    waits[f"{where} {name}"] += 1


def run(func, args, kwargs):
    name = func._schema.name.split("::")[1]
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    ours = [t for t in tensors if isinstance(t, Elsewhere)]
    wanted = kwargs.get("device")
    there = bool(ours) if wanted is None else torch.device(wanted).type == "elsewhere"
    if ours and name not in CROSSES and any(t.ndim for t in tensors if not isinstance(t, Elsewhere)):
        raise RuntimeError(f"{name}: tensors of two devices")
    if kwargs.get("generator") is not None and there:
        raise RuntimeError(f"{name}: a generator of the CPU for a tensor elsewhere")
    masks = [t for t in tree_leaves(args[1:2]) if isinstance(t, Elsewhere) and t.dtype == torch.bool]
    filled = name.startswith("index_put") and not args[2].ndim  # by one number: no need to know how often
    if ours and (name in WAITS or (name.startswith("index") and masks and not filled)):
        count_wait(name)
    leaves_device = name == "_to_copy" and ours and not there
    into_host = name == "copy_" and not isinstance(args[0], Elsewhere) and ours
    if leaves_device or into_host:
        count_wait("to the host")
    here_args, here_kwargs = tree_map(lambda t: t.here if isinstance(t, Elsewhere) else t, (args, kwargs))
    if wanted is not None:
        here_kwargs = {**here_kwargs, "device": torch.device("cpu")}
    result = func(*here_args, **here_kwargs)
    if name == "copy_" or (func._schema.is_mutable and name.endswith("_") and isinstance(args[0], torch.Tensor)):
        return args[0]
    if not there or name == "is_pinned":
        return result
    return tree_map(
        lambda t: Elsewhere(t) if isinstance(t, torch.Tensor) and not isinstance(t, Elsewhere) else t, result
    )


def move(value):
    """A tensor, or a module in place, on the device."""
    if isinstance(value, torch.Tensor):
        return Elsewhere(value)
    for module in value.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(Elsewhere(parameter.detach()))
        module._buffers.update({k: Elsewhere(b) for k, b in module._buffers.items() if b is not None})
    value.register_forward_hook(lambda *_: calls.update(["model"]))
    return value


@contextmanager
def elsewhere() -> Iterator[None]:
    """Inside, ``device="elsewhere"`` is known to factories and to ``.to``."""
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def results(value) -> list[torch.Tensor]:
    """Every tensor inside what a function returned."""
    if isinstance(value, torch.Tensor):
        return [value.detach()]
    if isinstance(value, dict):
        value = tuple(value.values())
    parts = (
        value if isinstance(value, (tuple, list)) else tuple(vars(value).values()) if hasattr(value, "__dict__") else ()
    )
    return [tensor for part in parts for tensor in results(part)]


def compare(function: Callable[[Callable], object]) -> dict[str, object]:
    """``function(move)`` on the CPU and elsewhere: what differs or went wrong, how often the host waited, and where."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = results(function(lambda value: value))
        waits.clear()
        calls.clear()
        try:
            with elsewhere():
                found = results(function(move))
        except Exception:
            return {"error": traceback.format_exc()}
    plain = [t.here if isinstance(t, Elsewhere) else t for t in found]
    same = len(plain) == len(wanted) and all(
        a.dtype.is_floating_point == b.dtype.is_floating_point
        and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-5, equal_nan=True)
        for a, b in zip(plain, wanted, strict=True)
    )
    finite = any(bool(t.isfinite().any()) for t in wanted)
    strayed = sum(not isinstance(t, Elsewhere) and t.ndim > 0 for t in found)
    return {
        "same": same,
        "finite": finite,
        "strayed": strayed,
        "waits": sum(waits.values()),
        "calls": calls.total(),
        "where": dict(waits),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _setup_privateuseone_for_python_backend("elsewhere", backend_module=Backend())
    from tests.device_checks import CHECKS

    sys.stdout.write("RESULTS " + json.dumps({name: compare(check) for name, check in CHECKS.items()}) + "\n")
    sys.stdout.flush()
    os._exit(0)
