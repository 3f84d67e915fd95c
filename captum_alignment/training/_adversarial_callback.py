"""Adversarial training as a Lightning callback."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override  # comes with torch

from captum_alignment._core._foolbox import Bounds
from captum_alignment._core._inputs import as_tensors
from captum_alignment.training._adversarial import AttackName, adversarial_examples, check_attack
from captum_alignment.training._lightning import check_unpacked, unpack_pair
from captum_alignment.training._regularizers import check_factor


class AdversarialTraining(Callback):
    """Trains on adversarial examples; the `LightningModule`, whose `forward` returns scores, stays as it is.

    Before each training step the batch's own input tensors are overwritten with `adversarial_examples`; afterwards they
    hold what they held before, also after an exception. The attack runs in float32 and on the module itself.

    Args:
        epsilon, attack, steps, step_size, random_start, bounds: as of `adversarial_examples`.
        generator: where random starts come from. None is a private one with a fixed seed that moves on from batch to
            batch.
        schedule: maps the number of optimizer steps taken so far to a factor >= 0 on epsilon.
        unpack: maps a batch to ``(inputs, target, …)``; by default the batch is such a tuple or list. It must return
            the very tensors that `training_step` uses, not copies.

    Raises:
        TypeError: a batch or an input of the wrong kind.
        ValueError: inputs out of bounds, unknown attack, numbers out of range.

    Madry et al. (2018).

    >>> callback = AdversarialTraining(epsilon=0.5, steps=10)
    """

    def __init__(
        self,
        epsilon: float,
        *,
        attack: AttackName = "pgd-l2",
        steps: int = 20,
        step_size: float | None = None,
        random_start: bool = True,
        bounds: Bounds = (0, 1),
        generator: torch.Generator | None = None,
        schedule: Callable[[int], float] | None = None,
        unpack: Callable[[Any], tuple[Any, ...]] | None = None,
    ):
        check_attack(attack, epsilon, steps, step_size)
        self.epsilon = epsilon
        self.options: dict[str, Any] = {
            "attack": attack, "steps": steps, "step_size": step_size, "random_start": random_start, "bounds": bounds,
            "generator": generator or torch.Generator().manual_seed(0),
        }  # fmt: skip
        self.schedule = schedule
        self.unpack = unpack or unpack_pair
        self._undo = ExitStack()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._undo.close()  # Lightning ends no batch that the module's own hook skipped
        factor = check_factor(self.schedule(trainer.global_step), "schedule") if self.schedule else 1.0
        inputs, target, *_ = check_unpacked(self.unpack(batch))
        tensors = as_tensors(inputs, "batch inputs")
        found = adversarial_examples(pl_module, tensors, target, epsilon=factor * self.epsilon, **self.options)
        for tensor, adversarial in zip(tensors, found, strict=True):
            self._undo.callback(_overwrite, tensor, tensor.detach().clone())
            _overwrite(tensor, adversarial)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._undo.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._undo.close()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._undo.close()


def _overwrite(tensor: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(values)
