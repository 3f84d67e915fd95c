"""Training the cohort: one network per regularization strength and seed, each trained once and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn
from tqdm import tqdm

from captum_alignment.study.cohort._config import StudyConfig
from captum_alignment.study.fit import EpochBar, Recipe, SmallNet, fit, make_recipe
from captum_alignment.study.load import Data, load_data
from captum_alignment.study.store import read_weights, write_weights


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


def study_data(config: StudyConfig, *, data_root: Path | None = None, download: bool = False) -> Data:
    """The samples of ``config``, the same ones for all of its models; raises as `load_data`."""
    return load_data(
        config.dataset,
        train_size=config.train_size,
        eval_size=config.eval_size,
        seed=config.seed,
        data_root=data_root,
        download=download,
    )


def build_network(data: Data) -> SmallNet:
    channels, height, width = data.train.images.shape[1:]
    return SmallNet((channels, height, width), len(data.classes))


def load_network(member: Member, data: Data, folder: Path) -> SmallNet:
    """The trained network of ``member``, in evaluation mode, on the CPU."""
    return _load(member.weights_file(folder), data)


def _load(path: Path, data: Data) -> SmallNet:
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
            network = train(member, config, data, folder, device=device, callbacks=[EpochBar(bar)])
            write_weights(member.weights_file(folder), network.state_dict())


def train(
    member: Member,
    config: StudyConfig,
    data: Data,
    folder: Path,
    *,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """One network trained from scratch on the CPU or ``device``, returned on the CPU; reproducible by its seed.

    Teachers and target maps that it needs are kept in ``folder``, where models of other strengths find them.
    """

    def make(recipe: Recipe, callbacks: Sequence[Callback] = ()) -> nn.Module:
        network = partial(build_network, data)
        return fit(network, recipe, data.train, config, seed=member.seed, device=device, callbacks=callbacks)

    def teach(name: str, recipe: Recipe) -> nn.Module:
        path = folder / "teachers" / f"{name}_seed-{member.seed}.pt"
        if not path.is_file():
            write_weights(path, make(recipe).state_dict())
        return _load(path, data)

    try:
        targets = folder / "targets" / f"seed-{member.seed}"
        return make(make_recipe(config.regularizer, member.strength, data.train, teach, targets), callbacks)
    except ValueError as error:
        raise ValueError(f"strength {member.strength:g}, seed {member.seed}: {error}") from error
