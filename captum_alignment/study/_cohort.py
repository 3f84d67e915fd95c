"""Training the cohort: one network per regularization strength and seed, each trained once and kept."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from tqdm import tqdm

from captum_alignment.study._config import StudyConfig
from captum_alignment.study._networks import Classifier, SmallNet
from captum_alignment.study._records import read_weights, write_weights
from captum_alignment.study._splits import Data, Split
from captum_alignment.training import LipschitzRegularization


@dataclass(frozen=True)
class Member:
    """One model of the cohort, named by what distinguishes it."""

    strength: float
    seed: int

    @property
    def name(self) -> str:
        return f"strength-{self.strength:g}_seed-{self.seed}"

    def weights_file(self, folder: Path) -> Path:
        return folder / "models" / f"{self.name}.pt"


def members(config: StudyConfig) -> list[Member]:
    """The models of the cohort, by strength, then seed."""
    return [Member(strength, seed) for strength in sorted(config.strengths) for seed in config.training_seeds]


def build_network(data: Data) -> SmallNet:
    channels, height, width = data.train.images.shape[1:]
    return SmallNet((channels, height, width), len(data.classes))


def load_network(member: Member, data: Data, folder: Path) -> SmallNet:
    """The trained network of ``member``, in evaluation mode, on the CPU."""
    path = member.weights_file(folder)
    network = build_network(data)
    try:
        network.load_state_dict(read_weights(path))
    except Exception as error:
        raise ValueError(f"{path}: holds no weights of this network; remove it and it is trained again") from error
    return network.eval()


def train_cohort(config: StudyConfig, data: Data, folder: Path, *, device: torch.device) -> None:
    """Train every member whose weights are not in ``folder`` yet, and write them there.

    Raises:
        KeyboardInterrupt: stopped by the user; the members finished before are in the folder.
        ValueError: a training that diverged.
    """
    cohort = members(config)
    missing = [member for member in cohort if not member.weights_file(folder).is_file()]
    with tqdm(total=len(cohort) * config.epochs, desc="training", unit="epoch", dynamic_ncols=True) as bar:
        bar.update((len(cohort) - len(missing)) * config.epochs)
        for member in missing:
            bar.set_postfix_str(f"strength {member.strength:g}, seed {member.seed}")
            network = train(member, config, data, device=device, progress=_Progress(bar))
            write_weights(member.weights_file(folder), network.state_dict())


def train(
    member: Member, config: StudyConfig, data: Data, *, device: torch.device, progress: Callback | None = None
) -> nn.Module:
    """One network trained from scratch on the CPU or ``device``, returned on the CPU; reproducible by its seed."""
    callbacks: list[Callback] = [LipschitzRegularization(member.strength)]
    with _quiet(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(member.seed)
        module = Classifier(build_network(data), config)
        trainer = Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=1 if device.index is None else [device.index],
            max_epochs=config.epochs,
            callbacks=callbacks if progress is None else [*callbacks, progress],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, _batches(data.train, config.batch_size))
        except SystemExit as error:
            # Lightning ends the process on Ctrl-C; the command wants to say how to continue.
            raise KeyboardInterrupt from error
        except ValueError as error:
            raise ValueError(f"strength {member.strength:g}, seed {member.seed}: {error}") from error
    network = module.network.cpu()
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise ValueError(
            f"strength {member.strength:g}, seed {member.seed}: the training diverged (weights are not finite); "
            "use smaller strengths"
        )
    return network


def _batches(split: Split, batch_size: int) -> Any:
    dataset = TensorDataset(split.images, split.labels)
    # The sampler hands out whole batches, so that tensors are indexed once per batch instead of once per sample.
    sampler = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


class _Progress(Callback):
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
