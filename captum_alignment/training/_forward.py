"""A second run of a model beside the user's own: what it must leave alone, and which wrappers it goes through."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

_SHARDED = ("FSDPModule", "FullyShardedDataParallel")
_COMPILED = ("_orig_mod", "_compiled_call_impl", "_compiler_ctx")


@contextmanager
def frozen_statistics(model: Any, spared: nn.Module | None = None) -> Iterator[None]:
    """Batch norm in train mode normalises by the batch as before but does not update its running statistics.

    That inside ``spared``, which may be a part of the model, is left alone.
    """
    others = set(_modules(spared))
    norms = [module for module in _modules(model) if isinstance(module, _BatchNorm) and module not in others]
    tracking = [module for module in norms if module.training and module.track_running_stats]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


@contextmanager
def twice_differentiable(model: Any) -> Iterator[None]:
    """Forward passes keep to what can be differentiated twice: the plain attention kernel, no cuDNN for recurrent
    layers, and modules that torch.compile has wrapped as they were before.
    """
    modules = _modules(model)
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in modules):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if is_compiled(modules) and hasattr(torch.compiler, "set_stance"):  # since torch 2.6
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def is_compiled(modules: Iterable[nn.Module]) -> bool:
    """Whether one of ``modules`` went through torch.compile, its own ``.compile()``, or Lightning's."""
    return any(getattr(module, mark, None) is not None for module in modules for mark in _COMPILED)


def unwrapped(model: Any, *, twice: bool) -> Any:
    """The model under the wrappers that allow no further forward pass or, where needed, no double backward.

    Raises:
        TypeError: a wrapper that allows neither.
    """
    if isinstance(model, nn.DataParallel):
        raise TypeError(
            "model: got DataParallel, whose replicas cannot be differentiated twice; "
            "use one device, or DistributedDataParallel with one process per device"
        )
    if twice and any(base.__name__ in _SHARDED for module in _modules(model) for base in type(module).__mro__):
        raise TypeError(
            f"model: got {type(model).__name__} with sharded parameters, which cannot be differentiated twice; "
            "use method='finite-difference', or DDP"
        )
    model = model.module if isinstance(model, DistributedDataParallel) else model
    return getattr(model, "_orig_mod", model) if twice else model


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Every module in eval mode; afterwards each in the mode that it had."""
    training = [module for module in _modules(model) if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def check_reduced(term: Tensor, model: Any) -> None:
    """After the backward pass of ``term``, a `ValueError` unless DDP has averaged the gradients over the processes.

    It does so only in a backward pass that follows its own forward pass, and the penalty runs the module inside.
    """
    if not isinstance(model, DistributedDataParallel) or not term.requires_grad:
        return
    reducer: Any = model.reducer
    in_sync = model.require_backward_grad_sync  # False inside no_sync()

    def at_start(_gradient: Tensor) -> None:
        before, expected = reducer.get_backward_stats(), in_sync and model.require_backward_grad_sync

        def at_end() -> None:
            if expected and reducer.get_backward_stats() == before:
                raise ValueError(
                    "model: DistributedDataParallel has not averaged the gradients, because its own forward pass is no "
                    "part of this backward pass; expected one backward pass for loss + term, with the loss computed "
                    "from model(inputs)"
                )

        torch.autograd.Variable._execution_engine.queue_callback(at_end)  # pyright: ignore[reportAttributeAccessIssue]

    term.register_hook(at_start)


def _modules(model: Any) -> list[nn.Module]:
    owner = getattr(model, "__self__", model)
    return list(owner.modules()) if isinstance(owner, nn.Module) else []
