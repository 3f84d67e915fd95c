"""Training the networks of a study, each trained once and kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn
from tqdm import tqdm

from captum_alignment.study.cohort._members import Member
from captum_alignment.study.fit import EpochBar, Recipe, TrainingConfig, fit, kept, make_recipe
from captum_alignment.study.load import Split
from captum_alignment.study.store import processes


def train_members(
    members: Sequence[Member],
    make: Callable[[], nn.Module],
    samples: Split,
    training: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
) -> None:
    """Train every member whose weights are not in ``folder`` yet, and write them there; processes share the members.

    Raises:
        KeyboardInterrupt: stopped by the user; the members finished before are in the folder.
        ValueError: a training that diverged.
    """
    with processes() as group, _bar(len(members) * training.epochs, group.rank == 0) as bar:
        missing = group.from_first(lambda: [one for one in members if not one.weights_file(folder).is_file()])
        bar.update((len(members) - len(missing)) * training.epochs)
        for member in group.share(missing, lambda others: bar.update(len(others) * training.epochs)):
            bar.set_postfix_str(member.name)
            train(member, make, samples, training, folder, device=device, callbacks=[EpochBar(bar)])
        group.wait()


def _bar(total: int, show: bool) -> Any:
    return tqdm(total=total, desc="training", unit="epoch", dynamic_ncols=True, disable=not show)


def load_network(member: Member, make: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """The trained network of ``member``, in evaluation mode on the CPU; errors as of `kept`."""
    return kept(member.weights_file(folder), make)


def train(
    member: Member,
    make: Callable[[], nn.Module],
    samples: Split,
    training: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """The network of ``member``, trained from scratch on ``device`` where ``folder`` has none; on the CPU.

    It is reproducible by its seed. Teachers and target maps that it needs are kept there too, where members of other
    strengths find them.
    """

    def fitted(recipe: Recipe, callbacks: Sequence[Callback] = ()) -> nn.Module:
        return fit(make, recipe, samples, training, seed=member.seed, device=device, callbacks=callbacks)

    def teach(name: str, recipe: Recipe) -> nn.Module:
        return kept(folder / "teachers" / f"{name}_seed-{member.seed}.pt", make, lambda: fitted(recipe))

    def trained() -> nn.Module:
        targets = folder / "targets" / f"seed-{member.seed}"
        return fitted(make_recipe(member.training, member.strength, samples, teach, targets), callbacks)

    try:
        return kept(member.weights_file(folder), make, trained)
    except ValueError as error:
        raise ValueError(f"{member.name}: {error}") from error
