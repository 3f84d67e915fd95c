"""Regularizers as Lightning callbacks, on the graph of the user's own training step where possible."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from typing_extensions import override  # comes with torch

from captum_alignment._core._inputs import check_count
from captum_alignment.training._batch import Unpack, unpacked
from captum_alignment.training._forward import ScoresOf, is_compiled, twice_differentiable
from captum_alignment.training._layer_inputs import watched
from captum_alignment.training._loss_check import check_loss, way_out_named
from captum_alignment.training._reduction import Reduction, check_reduction, count_of
from captum_alignment.training._regularizers import Regularizer, check_factor, check_regularizer

#: Where a checkpoint keeps the states of regularizers; a callback's own `state_dict` would need a unique key too early.
_IN_CHECKPOINT = "captum_alignment.training"


class RegularizationCallback(Callback):
    """Adds a regularizer's term to the loss of every training step; the `LightningModule` stays as it is.

    With ``forward="shared"`` the term is taken on the graph of the user's own `training_step`: the same dropout mask,
    batch-norm statistics updated once, no second forward pass. It needs a `training_step` whose loss is made of one
    loss per sample, by default as their **mean over the batch** (see ``reduction``), and computed from the batch's own
    input tensor; that tensor requires grad during the step and is restored afterwards, also after an exception.

    With ``forward="own"`` the regularizer calls the module (its `forward`, or ``scores``) a second time: new dropout
    masks, all buffers left alone. Under ``16-mixed`` that pass runs in float32, because unscaled input gradients
    underflow in float16. Of a compiled module it runs what was there before torch.compile.

    Precision, gradient scaling, accumulation and DDP are accounted for. The backward pass starts from loss + term, a
    new tensor: the module's own loss stays as it is. The term, before any scaling, is logged at every step under the
    regularizer's ``name`` (that of a second such callback as ``<name>_2``), and the mean norm of its input gradients as
    ``<name>_gradient_norm``. The state of its generator is in the trainer's checkpoints.

    Args:
        regularizer: e.g. `LocalLipschitz`.
        schedule: maps the number of optimizer steps taken so far to a factor >= 0 on the term, e.g.
            ``lambda step: min(1.0, step / 500)``. A step with factor or weight 0 costs nothing.
        unpack: maps a batch to ``(inputs, target, *extras)``; by default the batch is such a tuple or list. A shared
            regularizer must get the very tensors that `training_step` uses, not copies.
        forward: by default "shared" for penalties on the gradient of the loss, else "own".
        reduction: of a shared forward, what the sum of the samples' losses is divided by: "mean" is the batch size,
            "sum" is 1, and a function of the batch returns the number, or a tensor (N,) of one for each sample: e.g.
            ``lambda batch: (batch[1] != -100).sum()``. Under manual optimization a loss that the module divides by k to
            accumulate gradients has k times the count; the term is not divided, unless ``schedule`` does.
        check: before the first step, compare the input gradients of half a batch with those of the whole, which runs
            `training_step` four times more and puts back what the module held. False where that cannot be, or where
            the loss of one sample is meant to depend on the others.
        layer: of a shared forward, the name of a submodule whose output (N, ...) stands for the inputs, e.g.
            ``"net.embedding"`` for tokens, which have no gradient. Outputs of several runs count as one vector.
        scores: of an own forward, ``scores(module, inputs)`` returns them where the module's `forward` does not: a
            discriminator, a dictionary, an output object.
        backward: with manual optimization, which call of `manual_backward` in each training step gets the term, counted
            from 0.

    Raises:
        TypeError: not a regularizer; a batch or an input of the wrong kind.
        ValueError: a shared forward for a penalty that cannot use it, a loss that does not depend on the inputs or is
            not reduced as ``reduction`` says, a `manual_backward` that never comes, a term that is NaN or infinite
            (without a gradient scaler, which skips such steps by itself), settings of the trainer that exclude double
            backpropagation.

    >>> from captum_alignment.training import LocalLipschitz
    >>> callback = RegularizationCallback(LocalLipschitz(1e-3), schedule=lambda step: min(1.0, step / 500))
    """

    def __init__(
        self,
        regularizer: Regularizer,
        *,
        schedule: Callable[[int], float] | None = None,
        unpack: Unpack | None = None,
        forward: Literal["shared", "own"] | None = None,
        reduction: Reduction = "mean",
        check: bool = True,
        layer: str | None = None,
        scores: Callable[..., Any] | None = None,
        backward: int = 0,
    ):
        check_regularizer(regularizer)
        if forward is None:
            forward = "shared" if regularizer.only_needs_loss and scores is None else "own"
        if forward not in ("shared", "own"):
            raise ValueError(f"forward: got {forward!r}, expected 'shared' or 'own'")
        if forward == "shared" and not regularizer.only_needs_loss:
            raise ValueError(
                f"forward: got 'shared', but {regularizer.name} needs more than the loss gradient; expected 'own'"
            )
        for option, value, needed in (("scores", scores, "own"), ("layer", layer, "shared")):
            if value is not None and forward != needed:
                raise ValueError(f"{option}: is for forward={needed!r}, got forward={forward!r}")
        check_count("backward", backward, least=0)
        self.regularizer, self.schedule, self.unpack = regularizer, schedule, unpack
        self.forward: Literal["shared", "own"] = forward
        self.reduction: Reduction = check_reduction(reduction)
        self.layer, self.scores, self.backward, self.name = layer, scores, backward, regularizer.name
        self._unchecked = check and forward == "shared"
        self._factor, self._backwards, self._skipped = 0.0, 0, 0
        self._batch: Any = None
        self._inputs: list[Tensor] = []
        self._undo = ExitStack()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _check_trainer(trainer, pl_module, self.forward)
            ours: list[Any] = [c for c in trainer.callbacks if isinstance(c, RegularizationCallback)]  # pyright: ignore
            earlier = [c.regularizer.name for c in ours[: ours.index(self)]].count(self.regularizer.name)
            self.name = self.regularizer.name + (f"_{earlier + 1}" if earlier else "")

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault(_IN_CHECKPOINT, {})[self.name] = self.regularizer.state_dict()

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.regularizer.load_state_dict(checkpoint.get(_IN_CHECKPOINT, {}).get(self.name, {}))

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._leave_batch()  # Lightning ends no batch that the module's own hook skipped
        self._skipped = 0 if batch_idx == 0 else self._skipped
        self._factor = check_factor(self.schedule(trainer.global_step), "schedule") if self.schedule else 1.0
        if not self._active:
            return
        self._batch = batch
        if self.forward == "shared":
            if self._unchecked:
                self._unchecked = not check_loss(self, trainer, pl_module, batch, batch_idx)
            self._inputs = self._undo.enter_context(watched(pl_module, batch, self.unpack, self.layer))
            self._undo.enter_context(twice_differentiable(pl_module))
        self._undo.callback(_set_backward, pl_module, vars(pl_module).get("backward"))

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
                    f"{self.name}: the term is {term.item()} at step {trainer.global_step}, where the loss "
                    f"is {loss.item() / scale}; expected finite values (smaller weight, or a schedule that warms up)"
                )
            _add_to_backward(pl_module, (term * scale).to(loss.dtype))
            size = self.regularizer.gradient_norm
        if not trainer.barebones:
            pl_module.log(self.name, term.detach())
            if size is not None:
                pl_module.log(f"{self.name}_gradient_norm", size)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._active and not pl_module.automatic_optimization and self._backwards <= self.backward:
            # A step without any backward pass may be one that the module skips; an epoch of them is not.
            self._skipped += self._backwards == 0
            if self._backwards or self._skipped == trainer.num_training_batches:
                raise ValueError(
                    f"backward: got {self.backward}, counted from 0, but training_step called self.manual_backward "
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
        if self.forward == "own":
            inputs, *rest = unpacked(self._batch, self.unpack)
            model = module if self.scores is None else ScoresOf(module, self.scores)
            plugin = trainer.precision_plugin
            with nullcontext() if getattr(plugin, "scaler", None) else plugin.forward_context():
                return self.regularizer(model, inputs, *rest)
        count, inputs = count_of(self.reduction, self._batch), tuple(self._inputs)
        if self.layer is not None:
            self._inputs.clear()  # an optimizer with a closure runs the step again
        with way_out_named():
            return self.regularizer.from_loss(loss, inputs, scale=scale, count=count)

    def _leave_batch(self) -> None:
        self._batch, self._inputs, self._backwards = None, [], 0
        self._undo.close()


def _check_trainer(trainer: Trainer, module: LightningModule, forward: str) -> None:
    if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
        raise ValueError(f"strategy: got {type(trainer.strategy).__name__}, expected a single device or DDP")
    if forward == "shared" and is_compiled(module.modules()):
        raise ValueError(
            "model: is compiled by torch.compile, which has no double backward; expected forward='own', which runs the "
            "module as it was before"
        )


def _add_to_backward(module: LightningModule, term: Tensor) -> None:
    """The module's next call of `backward` starts from ``loss + term``; the loss is not written to."""
    backward = module.backward

    def joined(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        backward(loss if used else loss + term, *args, **kwargs)
        used.append(True)

    used: list[bool] = []
    _set_backward(module, joined)


def _set_backward(module: LightningModule, backward: Any) -> None:
    vars(module).pop("backward", None)
    if backward is not None:
        vars(module)["backward"] = backward
