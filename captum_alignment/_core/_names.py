"""Which module names the terms that a callable adds, and what it calls them."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_alignment._core._inputs import ForwardFunc
from captum_alignment._core._model import modules_behind


def unbound(forward_func: Any) -> Any:
    """What a method belongs to, also one inside a partial; else the callable itself."""
    while isinstance(forward_func, partial):
        forward_func = forward_func.func
    return getattr(forward_func, "__self__", forward_func)


def find_owner(forward_func: ForwardFunc) -> nn.Module | None:
    """The module that names the terms: itself, or the only one behind a callable."""
    behind = modules_behind(forward_func)
    inner = {id(part) for module in behind for part in module.modules() if part is not module}
    outermost = [module for module in behind if id(module) not in inner]
    owner = outermost[0] if len(outermost) == 1 else None
    owner = owner.module if isinstance(owner, nn.DataParallel) else owner
    owner = getattr(owner, "_orig_mod", owner)  # torch.compile's
    return None if isinstance(owner, torch.jit.ScriptModule) else owner


def names_by_storage(owner: nn.Module) -> dict[int, str]:
    """Names by storage, which views and detached copies share; a storage that holds several names has none."""
    names: dict[int, str] = {}
    shared = set()
    for name, tensor in [*owner.named_parameters(), *owner.named_buffers()]:
        key = storage(tensor)
        (shared.add(key) if key in names else names.setdefault(key, name))
    return {key: name for key, name in names.items() if key not in shared}


def storage(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.untyped_storage().data_ptr()
