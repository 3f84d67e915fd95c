"""Training one network with Lightning."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from captum_alignment.study._networks import Classifier, Training, cross_entropy
from captum_alignment.study._splits import Split

#: The loss of a batch, from its scores (N, K), images and labels.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Diverged(ValueError):
    """A training that ended with weights that are not finite."""


@dataclass(frozen=True)
class Recipe:
    """What distinguishes a training from a plain one.

    Attributes:
        callbacks: that change the step. maps: a target map for each training image. loss: of a batch.
    """

    callbacks: Sequence[Callback] = ()
    maps: Tensor | None = None
    loss: Loss = field(default=cross_entropy)


def fit(
    network: Callable[[], nn.Module],
    recipe: Recipe,
    samples: Split,
    config: Training,
    *,
    seed: int,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """A ``network`` made and trained with ``seed``, in evaluation mode on the CPU; reproducible by its seed.

    Raises:
        KeyboardInterrupt: stopped by the user. Diverged: the weights are not finite.
    """
    with _quiet(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        module = Classifier(network(), config, recipe.loss)
        trainer = Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=1 if device.index is None else [device.index],
            max_epochs=config.epochs,
            callbacks=[*recipe.callbacks, *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, _batches(samples, recipe.maps, config.batch_size))
        except SystemExit as error:
            # Lightning ends the process on Ctrl-C; the command wants to say how to continue.
            raise KeyboardInterrupt from error
    trained = module.network.cpu().eval()
    if not all(parameter.isfinite().all() for parameter in trained.parameters()):
        raise Diverged("the training diverged (weights are not finite); use smaller strengths")
    return trained


def _batches(split: Split, maps: Tensor | None, batch_size: int) -> Any:
    dataset = TensorDataset(split.images, split.labels, *([] if maps is None else [maps]))
    # The sampler hands out whole batches, so that tensors are indexed once per batch instead of once per sample.
    sampler = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


class EpochBar(Callback):
    """Moves a progress bar by one with every epoch."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's names
        self.bar.update()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its device report and tips, and without advice that does not apply to data in memory."""
    loggers = [logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "trainer")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
