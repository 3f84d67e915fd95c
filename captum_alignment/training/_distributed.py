"""Models spread over processes or devices: the module to run beside the user's own pass, and what to refuse."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from captum_alignment._core._gradients import graph_nodes
from captum_alignment.training._forward import modules_of

_SHARDED = ("FSDPModule", "FullyShardedDataParallel")


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
    if twice and any(base.__name__ in _SHARDED for module in modules_of(model) for base in type(module).__mro__):
        raise TypeError(
            f"model: got {type(model).__name__} with sharded parameters, which cannot be differentiated twice; "
            "use method='finite-difference', or DDP"
        )
    inner = _inside(model)
    if inner is None or not (twice or replicated(model)):
        return model
    if _is_fabric(model):  # a wrapper of the same kind keeps the precision of its forward pass
        return type(model)(unwrapped(inner, twice=twice), model._strategy, model._original_module)
    return unwrapped(inner, twice=twice)


def replicated(model: Any) -> DistributedDataParallel | None:
    """The `DistributedDataParallel` that ``model`` is or, compiled or set up by Fabric, wraps."""
    while model is not None and not isinstance(model, DistributedDataParallel):
        model = _inside(model)
    return model


def check_reduced(term: Tensor, model: Any) -> None:
    """After the backward pass of ``term``, a `ValueError` unless DDP has averaged the gradients over the processes.

    It does so only in a backward pass that follows its own forward pass, and the penalty runs the module inside.
    """
    ddp = replicated(model)
    if ddp is None or not term.requires_grad:
        return
    reducer: Any = ddp.reducer
    in_sync = ddp.require_backward_grad_sync  # False inside no_sync()
    first = _before_first_average(ddp)
    leaves = [node.variable for node in graph_nodes((term,)) if hasattr(node, "variable")] if first else []
    untouched = [leaf for leaf in leaves if leaf.grad is None]

    def at_start(_gradient: Tensor) -> None:
        before, expected = reducer.get_backward_stats(), in_sync and ddp.require_backward_grad_sync
        # What the term depends on has to wait for it, so a gradient that is there now is of an earlier backward pass.
        taken = any(leaf.grad is not None for leaf in untouched)

        def at_end() -> None:
            averaged = reducer.get_backward_stats() != before or (_before_first_average(ddp) != first and not taken)
            if expected and not averaged:
                raise ValueError(
                    "model: DistributedDataParallel has not averaged the gradients, because its own forward pass is no "
                    "part of this backward pass; expected one backward pass for loss + term, with the loss computed "
                    "from model(inputs)"
                )

        torch.autograd.Variable._execution_engine.queue_callback(at_end)  # pyright: ignore[reportAttributeAccessIssue]

    term.register_hook(at_start)


def check_outputs(nodes: list[Any]) -> None:
    """A `ValueError` if a gradient through these nodes of a graph would start DDP's own average too early."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    sinks = [node.ddp_weakref() for node in nodes if node.name() == "_DDPSinkBackward"]
    if any(ddp is not None and ddp.static_graph for ddp in sinks):
        raise ValueError(
            "model: DistributedDataParallel(static_graph=True) takes the inner gradient for its first backward pass "
            "and does not average; expected static_graph=False, or a regularizer that runs its own forward pass"
        )


def _before_first_average(ddp: DistributedDataParallel) -> bool:
    """Whether the first average of a static graph, which leaves no trace in the reducer's statistics, is to come."""
    return not getattr(ddp, "_static_graph_delay_allreduce_enqueued", True)


def _inside(model: Any) -> Any:
    if isinstance(model, DistributedDataParallel):
        return model.module
    parts = dict(model.named_children()) if isinstance(model, nn.Module) else {}
    return parts.get("_forward_module" if _is_fabric(model) else "_orig_mod")


def _is_fabric(model: Any) -> bool:
    return type(model).__name__ == "_FabricModule"
