"""Adversarial training as a Lightning callback."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override  # comes with torch

from captum_alignment._core._inputs import as_tensors
from captum_alignment._core._random import as_generator
from captum_alignment.training._adversarial import AttackName, ChannelBounds, adversarial_examples, check_attack
from captum_alignment.training._batch import Unpack, exchanged, unpacked
from captum_alignment.training._forward import ScoresOf
from captum_alignment.training._regularizers import check_factor


class AdversarialTraining(Callback):
    """Trains on adversarial examples; the `LightningModule`, whose `forward` returns scores, stays as it is.

    During each training step the batch's own input tensors hold `adversarial_examples`; afterwards what they held
    before, also after an exception. Nothing is written to their memory. The attack runs in float32 and on the module
    itself. The state of the generator is in the trainer's checkpoints.

    Args:
        epsilon, attack, steps, step_size, random_start, bounds: as of `adversarial_examples`.
        generator: where random starts come from. None is a private one with a fixed seed that moves on from batch to
            batch.
        schedule: maps the number of optimizer steps taken so far to a factor >= 0 on epsilon.
        unpack: maps a batch to ``(inputs, target, …)``; by default the batch is such a tuple or list. It must return
            the very tensors that `training_step` uses, not copies.
        scores: ``scores(module, inputs)`` returns them where the module's `forward` does not.

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
        bounds: ChannelBounds = (0, 1),
        generator: torch.Generator | None = None,
        schedule: Callable[[int], float] | None = None,
        unpack: Unpack | None = None,
        scores: Callable[..., Any] | None = None,
    ):
        check_attack(attack, epsilon, steps, step_size)
        self.epsilon = epsilon
        self.generator = as_generator(generator)
        self.options: dict[str, Any] = {
            "attack": attack, "steps": steps, "step_size": step_size, "random_start": random_start, "bounds": bounds,
            "generator": self.generator,
        }  # fmt: skip
        self.schedule, self.unpack, self.scores = schedule, unpack, scores
        self._undo = ExitStack()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["generator"].cpu())

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._undo.close()  # Lightning ends no batch that the module's own hook skipped
        factor = check_factor(self.schedule(trainer.global_step), "schedule") if self.schedule else 1.0
        inputs, target, *_ = unpacked(batch, self.unpack)
        tensors = as_tensors(inputs, "batch inputs")
        model = pl_module if self.scores is None else ScoresOf(pl_module, self.scores)
        found = adversarial_examples(model, tensors, target, epsilon=factor * self.epsilon, **self.options)
        self._undo.enter_context(exchanged(tensors, found))

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
