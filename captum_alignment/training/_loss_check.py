"""Is the loss of a training step reduced as it is said to be? Half a batch, compared with the whole, tells."""

import copy
import logging
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_alignment._core._inputs import flatten, widest_dtype
from captum_alignment.training._batch import Unpack, unpacked
from captum_alignment.training._forward import kept_buffers, twice_differentiable
from captum_alignment.training._graph import loss_gradients
from captum_alignment.training._layer_inputs import watched
from captum_alignment.training._reduction import Reduction, count_of

_log = logging.getLogger(__name__)

#: How far the gradients of half a batch may be from those of the whole, relative to their norm; that of half precision.
_TOLERANCE, _HALVES = 0.02, 0.1
#: Ratios of their norms that get a warning at most, as chance in the training step makes them differ, too.
_COARSE = 1.5


class Asked(Protocol):
    """What the check reads of a callback."""

    name: str
    unpack: Unpack | None
    layer: str | None
    reduction: Reduction
    backward: int


def check_loss(asked: Asked, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> bool:
    """Whether the loss could be checked; a `ValueError` if samples have other gradients in half a batch.

    Dropout and batch norm are in eval mode meanwhile, so that only the reduction makes a difference. A constant factor
    on the loss cannot be seen.
    """
    inputs, *_ = unpacked(batch, asked.unpack)
    tensors = [value for value in (inputs if isinstance(inputs, tuple) else (inputs,)) if isinstance(value, Tensor)]
    n = len(tensors[0]) if tensors else 0
    half = n // 2
    if half == 0:
        return False
    tolerance = _HALVES if tensors[0].dtype in (torch.float16, torch.bfloat16) else _TOLERANCE

    def gradients(rows: Tensor, seed: int = 0) -> Tensor | None:
        with _rehearsal(trainer, module, seed):
            part = apply_to_collection(batch, Tensor, lambda t: _rows(t, rows, n))
            with watched(module, part, asked.unpack, asked.layer) as points:
                loss = _loss(asked, module, part, batch_idx)
                if loss is None:
                    return None
                with way_out_named():
                    found = loss_gradients(loss, tuple(points), count=count_of(asked.reduction, part))
        return flatten(tuple(g.detach() for g in found), widest_dtype(found[0].device))[:half]

    try:
        order = torch.arange(n)
        # Copies are other company with the same chance: what a sample draws in half a batch is not that of the whole.
        runs = [gradients(order), gradients(order, 1), gradients(order[:half]), gradients(order % half)]
    except _NotRun as error:
        warnings.warn(
            f"{asked.name}: training_step does not run on half a batch ({error}), so nobody has checked that its loss "
            f"is reduced as reduction={asked.reduction!r} says; check=False takes it at its word",
            stacklevel=2,
        )
        return True
    found = [run for run in runs if run is not None and run.isfinite().all()]
    if len(found) < len(runs) or not any(run.any() for run in found):
        return False  # e.g. without any label in the half
    whole, again, of_half, beside_copies = found
    ratio = float(whole.norm() / of_half.norm())
    random_step = bool((whole - again).norm() > tolerance * whole.norm())
    other = beside_copies if random_step else of_half
    parallel = bool((whole - whole.norm() / other.norm() * other).norm() <= tolerance * whole.norm())
    seen = (
        f"reduction: got {asked.reduction!r}, but {half} of {n} samples have other input gradients in the whole batch "
        f"than by themselves, {ratio:.3g} times as large"
    )
    if not parallel or not 1 / _COARSE < ratio < _COARSE:
        is_sum = asked.reduction == "mean" and abs(ratio * half / n - 1) < tolerance
        raise ValueError(
            f"{seen}{' (the loss looks like a sum)' if is_sum else ''}; expected 'mean', 'sum' or a function of the "
            "batch, as it is reduced. Where samples depend on each other (mixup in the step, a contrastive loss), "
            "forward='own', or check=False to penalise such gradients"
        )
    if not random_step and abs(ratio - 1) > tolerance:
        warnings.warn(
            f"{seen}: the weight of the term varies so much from batch to batch (class weights, ignore_index, a root "
            "of the mean?); a function that returns, for a batch, what the sum of the losses is divided by keeps it",
            stacklevel=2,
        )
        return True
    _log.info("%s: the loss is reduced as reduction=%r says, by %d of %d samples", asked.name, asked.reduction, half, n)
    return True


def _rows(tensor: Tensor, rows: Tensor, n: int) -> Tensor:
    per_sample = tensor.ndim > 0 and len(tensor) == n
    return (tensor[rows.to(tensor.device)] if per_sample else tensor).detach().clone()


@contextmanager
def way_out_named() -> Iterator[None]:
    """What is wrong with a loss on the graph of the training step, and what to do about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{error}; training_step must use the tensors that unpack returns, else use forward='own'"
        ) from error


class _NotRun(Exception):
    """The training step failed on a part of a batch."""


class _Reached(Exception):
    """A manual step has got to its backward pass."""


def _loss(asked: Asked, module: LightningModule, batch: Any, batch_idx: int) -> Tensor | None:
    """The loss that `training_step` returns or, under manual optimization, hands to its first `manual_backward`."""
    losses: list[Tensor] = []

    def reached(loss: Tensor, *_args: Any, **_kwargs: Any) -> None:
        losses.append(loss)
        raise _Reached

    if not module.automatic_optimization:
        if asked.backward > 0:  # before it come steps of optimizers, which cannot be put back
            _log.info("%s: the reduction of the loss has not been checked", asked.name)
            return None
        vars(module)["manual_backward"] = reached
    position = (batch_idx,) if is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2) else ()
    try:
        output = module.training_step(batch, *position)
    except _Reached:
        return losses[0]
    except Exception as error:
        if "leaf Variable that requires grad" in str(error):
            raise ValueError(
                "training_step: changes the inputs of the batch in place, which then have no gradient; expected an "
                "operation out of place, or forward='own'"
            ) from error
        raise _NotRun(f"{type(error).__name__}: {error}") from error
    return output["loss"] if isinstance(output, Mapping) else output


@contextmanager
def _rehearsal(trainer: Trainer, module: LightningModule, seed: int) -> Iterator[None]:
    """A run of the training step that nobody notices: what the module holds, logs and draws by chance is put back."""
    plugin = trainer.precision_plugin
    flags = [(p, p.requires_grad) for p in module.parameters()]
    held = [(m, dict(vars(m))) for m in module.modules()]
    with kept_buffers(module), isolate_rng(), twice_differentiable(module), torch.enable_grad():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            for owner, attributes in held:
                for name, value in attributes.items():
                    if name not in ("_parameters", "_buffers", "_modules") and type(value) in (list, dict, set):
                        vars(owner)[name] = copy.copy(value)
                    elif isinstance(value, Tensor):
                        vars(owner)[name] = value.clone()
                if isinstance(owner, (_BatchNorm, _DropoutNd)):
                    owner.training = False
            vars(module)["log"] = vars(module)["log_dict"] = lambda *_args, **_kwargs: None
            with nullcontext() if isinstance(plugin, MixedPrecision) else plugin.forward_context():
                yield
        finally:
            for owner, attributes in held:
                vars(owner).clear()
                vars(owner).update(attributes)
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
