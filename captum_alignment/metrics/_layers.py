"""The layers of a model in the order in which they run, and their re-initialisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from captum_alignment._core._inputs import Tensors
from captum_alignment._core._scores import run_output


def run_order(model: nn.Module, x: Tensors, args: Any) -> tuple[dict[str, list[nn.Module]], Tensor]:
    """The modules with parameters of their own, from the last that runs to the first, and the output of that run.

    One that does not run by itself (attention uses the parameters of its projection) has the place of its parent.
    """
    modules = dict(model.named_modules())
    clock: dict[str, int] = {}

    def started(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            clock.setdefault(name, len(clock))

        return hook

    handles = [module.register_forward_pre_hook(started(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            output = run_output(model, x, args)
    finally:
        for handle in handles:
            handle.remove()
    for name in modules:
        clock.setdefault(name, clock.get(name.rpartition(".")[0], 0))
    inner = {
        id(m) for module in modules.values() if is_parametrized(module) for m in _parametrizations(module).modules()
    }
    own = [name for name, module in modules.items() if id(module) not in inner and _own(module)]
    if not own:
        raise ValueError("model: has no parameters, expected layers to randomise")
    return {name or "(root)": [modules[name]] for name in sorted(own, key=clock.__getitem__, reverse=True)}, output


@torch.no_grad()
def reinitialise(modules: list[nn.Module], name: str) -> None:
    """Forget what the modules have learnt, or a `ValueError`, about ``name``, where a parametrised one keeps it."""
    for module in modules:
        parameters = _own(module)
        before = [parameter.clone() for parameter in parameters]
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        # A parametrised weight is computed from others, which reset_parameters leaves as they are.
        for parameter, old in zip(parameters, before, strict=True):
            if torch.equal(parameter, old):
                flat = parameter.flatten()
                parameter.copy_(flat[torch.randperm(len(flat), device=flat.device)].reshape(parameter.shape))
        behind = {id(parameter) for parameter in _behind(module)}
        kept = [torch.equal(p, old) for p, old in zip(parameters, before, strict=True) if id(p) in behind]
        if kept and all(kept):
            raise ValueError(
                f"{name}: the parametrised {type(module).__name__} has the same values after it was re-initialised or "
                "permuted, expected one with values that differ, or other layers"
            )


def _own(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of the module itself and those behind its parametrised ones (weight norm …)."""
    return [*module.parameters(recurse=False), *_behind(module)]


def _behind(module: nn.Module) -> list[nn.Parameter]:
    return list(_parametrizations(module).parameters()) if is_parametrized(module) else []


def _parametrizations(module: nn.Module) -> nn.ModuleDict:
    return module.get_submodule("parametrizations")  # pyright: ignore[reportReturnType]
