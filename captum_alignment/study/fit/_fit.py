"""Training one network with Lightning."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from typing_extensions import override  # comes with torch

from captum_alignment.study.fit._config import TrainingConfig
from captum_alignment.study.fit._recipes import Loss, Recipe, cross_entropy
from captum_alignment.study.load import Split

#: Images that a network is tested on at once.
_CHUNK = 512
#: Pixels by which an image is shifted at most.
_SHIFT = 4


class Classifier(LightningModule):
    """Training of ``network`` on batches (images, labels, ...) with the optimizer that ``config`` names.

    Args:
        loss: of the scores, images and labels of a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.loss = loss

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's names
        images, labels = batch[:2]
        return self.loss(self(images), images, labels)

    def configure_optimizers(self) -> Any:
        config, parameters = self.config, self.network.parameters()
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                parameters, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
            )
        else:
            optimizer = torch.optim.Adam(parameters, config.learning_rate, weight_decay=config.weight_decay)
        if config.decay_every is None:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        else:
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.decay_every, gamma=0.1)
        return [optimizer], [schedule]


class Diverged(ValueError):
    """A training that ended with weights that are not finite."""


def fit(
    network: Callable[[], nn.Module],
    recipe: Recipe,
    samples: Split,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """A ``network`` made and trained with ``seed``, in evaluation mode on the CPU; reproducible by its seed.

    Raises:
        KeyboardInterrupt: stopped by the user. Diverged: the weights are not finite.
        ValueError: augmentation for a recipe with target maps, which would no longer lie where the image shows it.
    """
    if config.augment and recipe.maps is not None:
        raise ValueError("augment: got True for a training with target maps, which do not move with the images")
    augmentation = [Augmentation()] if config.augment else []
    with _quiet(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        module = Classifier(network(), config, recipe.loss)
        trainer = Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=1 if device.index is None else [device.index],
            max_epochs=config.epochs,
            callbacks=[*augmentation, *recipe.callbacks, *callbacks],
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


class Augmentation(Callback):
    """Before each training step flips every image at random, and shifts it by up to 4 pixels over black ground."""

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        batch[0] = augmented(batch[0])


def augmented(images: Tensor) -> Tensor:
    """``images`` (N, C, H, W), each flipped or not and shifted by up to 4 pixels, by the global generator."""
    n, _, height, width = images.shape
    shift = torch.randint(2 * _SHIFT + 1, (2, n, 1)).to(images.device)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = shift[1] + torch.arange(width, device=images.device)
    columns = torch.where((torch.rand(n, 1) < 0.5).to(images.device), columns.flip(1), columns)
    padded = nn.functional.pad(images, (_SHIFT,) * 4)
    samples = torch.arange(n, device=images.device).view(-1, 1, 1)
    return padded[samples, :, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(-1, 1).contiguous()


def fit_fresh(
    make_model: Callable[[], nn.Module],
    split: Split,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    name: str,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """A network of ``make_model`` trained on ``split``, in evaluation mode on the CPU; ``name`` is for messages.

    Raises:
        ValueError: the training diverged.
    """

    def network() -> nn.Module:
        return make_model().train()  # what loads a model may have it in evaluation mode

    try:
        return fit(network, Recipe(), split, config, seed=seed, device=device, callbacks=callbacks)
    except Diverged as error:
        raise ValueError(f"{name}: the training diverged; use a smaller learning rate") from error


@torch.no_grad()
def count_correct(network: nn.Module, split: Split, device: torch.device) -> int:
    """How many samples of ``split`` the ``network`` on ``device`` predicts as labelled."""
    batches = zip(split.images.split(_CHUNK), split.labels.split(_CHUNK), strict=True)
    return sum(int((network(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in batches)
