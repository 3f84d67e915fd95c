"""Regularizers as Lightning callbacks, on the graph of the user's own training step where possible."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from typing_extensions import override  # comes with torch

from captum_alignment._core._inputs import as_tensors
from captum_alignment.training._forward import is_compiled, twice_differentiable
from captum_alignment.training._penalties import Of
from captum_alignment.training._regularizers import LocalLipschitz, Method, Regularizer, check_factor


class RegularizationCallback(Callback):
    """Adds a regularizer's term to the loss of every training step; the `LightningModule` stays as it is.

    With ``forward="shared"`` the term is taken on the graph of the user's own `training_step`: the same dropout mask,
    batch-norm statistics updated once, no second forward pass. It needs a `training_step` whose loss is the mean over
    the batch of one loss per sample, computed from the batch's own input tensor; that tensor requires grad during the
    step and is restored afterwards, also after an exception.

    With ``forward="own"`` the regularizer calls the module (its `forward` must return scores) a second time: new
    dropout masks, running statistics left alone. Under ``16-mixed`` that pass runs in float32, because unscaled input
    gradients underflow in float16. Of a compiled module it runs what was there before torch.compile, or with
    ``method="finite-difference"`` the compiled module itself.

    Precision, gradient scaling, accumulation and DDP are accounted for. The term, before any scaling, is logged at
    every step under the regularizer's ``name``, and the mean norm of its input gradients as ``<name>_gradient_norm``.

    Args:
        regularizer: e.g. `LocalLipschitz`. Shared regularizers come before all others in the trainer's callbacks, and
            there is at most one, because a later one would penalise the term of the earlier.
        schedule: maps the number of optimizer steps taken so far to a factor >= 0 on the term, e.g.
            ``lambda step: min(1.0, step / 500)``. A step with factor or weight 0 costs nothing.
        unpack: maps a batch to ``(inputs, target, *extras)``; by default the batch is such a tuple or list. A shared
            regularizer must get the very tensors that `training_step` uses, not copies.
        forward: by default "shared" for penalties on the gradient of the loss, else "own".
        backward: with manual optimization, which call of `manual_backward` in each training step gets the term, counted
            from 0. A loss that the module divides to accumulate gradients is its own affair: the term is not divided.

    Raises:
        TypeError: not a regularizer; a batch or an input of the wrong kind.
        ValueError: a shared forward for a penalty that cannot use it, a loss that does not depend on the inputs, a
            term that is NaN or infinite (without a gradient scaler, which skips such steps by itself), and, when
            fitting starts, settings of the trainer that exclude double backpropagation.

    >>> callback = RegularizationCallback(LocalLipschitz(1e-3), schedule=lambda step: min(1.0, step / 500))
    """

    def __init__(
        self,
        regularizer: Regularizer,
        *,
        schedule: Callable[[int], float] | None = None,
        unpack: Callable[[Any], tuple[Any, ...]] | None = None,
        forward: Literal["shared", "own"] | None = None,
        backward: int = 0,
    ):
        if not isinstance(regularizer, Regularizer):
            raise TypeError(
                f"regularizer: got {type(regularizer).__name__}, expected a Regularizer such as LocalLipschitz"
            )
        if forward is None:
            forward = "shared" if regularizer.only_needs_loss else "own"
        if forward not in ("shared", "own"):
            raise ValueError(f"forward: got {forward!r}, expected 'shared' or 'own'")
        if forward == "shared" and not regularizer.only_needs_loss:
            raise ValueError(
                f"forward: got 'shared', but {regularizer.name} needs more than the loss gradient; expected 'own'"
            )
        if isinstance(backward, bool) or not isinstance(backward, int) or backward < 0:
            raise ValueError(f"backward: got {backward!r}, expected the index of a call of manual_backward, 0 or more")
        self.regularizer = regularizer
        self.schedule = schedule
        self.unpack = unpack or unpack_pair
        self.forward: Literal["shared", "own"] = forward
        self.backward = backward
        self._backwards = 0
        self._factor = 0.0
        self._batch: tuple[Any, ...] = ()
        self._undo = ExitStack()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _check_trainer(trainer, pl_module, self.forward)
            earlier = trainer.callbacks[: trainer.callbacks.index(self)]  # pyright: ignore[reportAttributeAccessIssue]
            if self.forward == "shared" and any(isinstance(c, RegularizationCallback) for c in earlier):
                raise ValueError(
                    "callbacks: a shared regularization comes after another, whose term it would penalise; "
                    "expected at most one shared regularization, before those with forward='own'"
                )

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._leave_batch()  # Lightning ends no batch that the module's own hook skipped
        self._factor = check_factor(self.schedule(trainer.global_step), "schedule") if self.schedule else 1.0
        if not self._active:
            return
        inputs, *rest = check_unpacked(self.unpack(batch))
        self._batch = (inputs, *rest)
        if self.forward == "shared":
            for tensor in as_tensors(inputs, "batch inputs"):
                if not tensor.requires_grad:
                    self._undo.callback(_set_grad, tensor, tensor.grad)
                    tensor.requires_grad_()
            self._undo.enter_context(twice_differentiable(pl_module))

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._backwards += 1
        if not pl_module.automatic_optimization and self._backwards != self.backward + 1:
            return
        term, size = torch.zeros((), device=loss.device), None
        if self._active:
            # Lightning has already divided the loss, also in an incomplete last window, and scaled it.
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scale = (1.0 if scaler is None else scaler.get_scale()) / trainer.accumulate_grad_batches
            term = self._factor * self._term(trainer, pl_module, loss, scale)
            if scaler is None and not term.isfinite():
                raise ValueError(
                    f"{self.regularizer.name}: the term is {term.item()} at step {trainer.global_step}, where the loss "
                    f"is {loss.item() / scale}; expected finite values (smaller weight, or a schedule that warms up)"
                )
            loss.add_((term * scale).to(loss.dtype))
            size = self.regularizer.gradient_norm
        if not trainer.barebones:
            pl_module.log(self.regularizer.name, term.detach())
            if size is not None:
                pl_module.log(f"{self.regularizer.name}_gradient_norm", size)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._active and not pl_module.automatic_optimization and 0 < self._backwards <= self.backward:
            raise ValueError(
                f"backward: got {self.backward}, counted from 0, but training_step called manual_backward "
                f"{self._backwards} times"
            )
        self._leave_batch()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave_batch()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._leave_batch()

    @property
    def _active(self) -> bool:
        return self._factor * self.regularizer.weight > 0

    def _term(self, trainer: Trainer, module: LightningModule, loss: Tensor, scale: float) -> Tensor:
        inputs, *rest = self._batch
        if self.forward == "own":
            plugin = trainer.precision_plugin
            with nullcontext() if getattr(plugin, "scaler", None) else plugin.forward_context():
                return self.regularizer(module, inputs, *rest)
        try:
            return self.regularizer.from_loss(loss, inputs, scale=scale)
        except ValueError as error:
            raise ValueError(
                f"{error}; training_step must use the tensors that unpack returns, else use forward='own'"
            ) from error

    def _leave_batch(self) -> None:
        self._batch, self._backwards = (), 0
        self._undo.close()


class LipschitzRegularization(RegularizationCallback):
    """Local Lipschitz regularization of a Lightning training: `RegularizationCallback` around `LocalLipschitz`.

    ``Trainer(callbacks=[LipschitzRegularization(1e-3)])`` adds 1e-3 · mean_i ‖∇ₓ loss_i‖² to the loss of the module's
    own training step and logs it as ``local_lipschitz``. The arguments are those of the two classes.

    >>> callback = LipschitzRegularization(1e-3)
    """

    def __init__(
        self,
        weight: float,
        *,
        of: Of = "loss",
        norm: float = 2,
        squared: bool = True,
        method: Method = "double-backward",
        step: float = 0.01,
        schedule: Callable[[int], float] | None = None,
        unpack: Callable[[Any], tuple[Any, ...]] | None = None,
        forward: Literal["shared", "own"] | None = None,
        backward: int = 0,
    ):
        regularizer = LocalLipschitz(weight, of=of, norm=norm, squared=squared, method=method, step=step)
        super().__init__(regularizer, schedule=schedule, unpack=unpack, forward=forward, backward=backward)


def unpack_pair(batch: Any) -> tuple[Any, ...]:
    """A batch that is itself ``(inputs, target, *extras)``, else a `TypeError`."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise TypeError(
            f"batch: got {type(batch).__name__}, expected (inputs, target, ...); say where they are, "
            "e.g. unpack=lambda batch: (batch['image'], batch['label'])"
        )
    return tuple(batch)


def check_unpacked(unpacked: Any) -> tuple[Any, ...]:
    """What ``unpack`` returned, with several inputs as a tuple."""
    if not isinstance(unpacked, tuple) or len(unpacked) < 2:
        raise TypeError(f"unpack: returned {type(unpacked).__name__}, expected a tuple (inputs, target, *extras)")
    inputs, *rest = unpacked
    # The default collate function makes lists of tuples.
    return (tuple(inputs) if isinstance(inputs, list) else inputs, *rest)


def _check_trainer(trainer: Trainer, module: LightningModule, forward: str) -> None:
    if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
        raise ValueError(f"strategy: got {type(trainer.strategy).__name__}, expected a single device or DDP")
    if forward == "shared" and is_compiled(module.modules()):
        raise ValueError(
            "model: is compiled by torch.compile, which has no double backward; expected forward='own', which runs the "
            "module as it was before, or the compiled one with method='finite-difference'"
        )


def _set_grad(tensor: Tensor, grad: Tensor | None) -> None:
    tensor.requires_grad_(False)
    tensor.grad = grad
