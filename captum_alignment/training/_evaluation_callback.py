"""Alignment and robustness in the log of a Lightning training."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override  # comes with torch

from captum_alignment import metrics
from captum_alignment._core._inputs import as_tensors, check_count, like_inputs
from captum_alignment.training._batch import Unpack, unpacked
from captum_alignment.training._forward import ScoresOf, evaluating


class EvaluationCallback(Callback):
    """Logs medians of alignment, its chance level, linearized robustness and distance after every validation.

    ``Trainer(callbacks=[EvaluationCallback()])``, for a module whose `forward` returns scores. It measures the first
    samples of the first validation batch, the same all along, in eval mode and outside autocast, and logs
    ``alignment``, ``alignment_null``, ``linearized_robustness`` and ``distance`` of the predicted class, as
    `captum_alignment.metrics.RobustnessMetric` has them; over several processes of all of their samples.

    Args:
        samples: how many, at most; 50 show a trend, at the price of K backward passes for K classes.
        distance_every: search adversarials after every so many epochs, from the first on; None is never.
        attacks, bounds: as of `adversarial_distance`. The bounds are those of what the module gets.
        norm: 1, 2 or inf, in which perturbations are measured.
        unpack: maps a batch to ``(inputs, target, ...)``; by default the batch is such a tuple or list.
        scores: ``scores(module, inputs)`` returns them where the module's `forward` does not.
        prefix: of the logged names, e.g. ``"val/"``.

    Raises:
        TypeError, ValueError: numbers out of range, two callbacks with one prefix; after a validation as
            `linear_analysis` and `adversarial_distance`.

    Etmann et al. (2019), Definitions 1 to 4.

    >>> callback = EvaluationCallback(distance_every=5)
    """

    def __init__(
        self,
        *,
        samples: int = 50,
        distance_every: int | None = None,
        attacks: Any = "fast",
        norm: float = 2,
        bounds: tuple[float, float] = (0, 1),
        unpack: Unpack | None = None,
        scores: Any = None,
        prefix: str = "",
    ):
        self.samples = check_count("samples", samples)
        if distance_every is not None:
            check_count("distance_every", distance_every, also=" or None (never)")
        self.distance_every, self.unpack, self.scores, self.prefix = distance_every, unpack, scores, prefix
        self._linear = metrics.RobustnessMetric(norm=norm)
        self._full = metrics.RobustnessMetric(attacks=attacks, norm=norm, bounds=bounds)
        self._inputs: Any = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        ours: list[Any] = [c for c in trainer.callbacks if isinstance(c, EvaluationCallback)]  # pyright: ignore
        if [c.prefix for c in ours].count(self.prefix) > 1:
            raise ValueError(f"prefix: got {self.prefix!r} of two callbacks, expected another one for each")

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._inputs is None:
            inputs, *_ = unpacked(batch, self.unpack)
            with torch.inference_mode(False):
                first = tuple(x[: self.samples].detach().clone() for x in as_tensors(inputs, "batch inputs"))
            self._inputs = like_inputs(first, inputs)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or self._inputs is None:
            return
        every, epoch = self.distance_every, trainer.current_epoch
        metric = self._full if every is not None and epoch % every == 0 else self._linear
        metric.to(pl_module.device).reset()
        model = pl_module if self.scores is None else ScoresOf(pl_module, self.scores)
        with evaluating(pl_module), torch.autocast(pl_module.device.type, enabled=False):
            metric.update(model, self._inputs)
        found = metric.compute()
        pl_module.log_dict({self.prefix + name: found[name].float() for name in metric.names}, sync_dist=True)
