"""The networks of the study of faithfulness: how each is trained, and what is measured of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_alignment import adversarial_distance
from captum_alignment.metrics import alignment_null, median_interval
from captum_alignment.study.faithfulness._config import CHOICES, STANDARD
from captum_alignment.study.fit import SEED, TRAININGS, Diverged, Recipe, Training, count_correct, fit, make_recipe
from captum_alignment.study.load import Split
from captum_alignment.study.roar import MapFunction
from captum_alignment.study.store import read_weights, write_json, write_weights

#: So many test images tell distances and alignment.
MEASURED = 500


@dataclass(frozen=True)
class Trained:
    """One network by how it was trained; ``strength`` as of `TRAININGS`, 0 for the standard one."""

    training: str
    strength: float

    @property
    def name(self) -> str:
        return self.training if self.training == STANDARD else f"{self.training} {self.strength:g}"

    def file(self, folder: Path, ending: str) -> Path:
        return folder / "networks" / f"{self.name}{ending}"


def networks_of(trainings: Sequence[str], pixels: int) -> list[Trained]:
    """The standard network, and those of each training: all radii of adversarial training, every other strength else.

    Raises:
        ValueError: an unknown training.
    """
    found = [Trained(STANDARD, 0.0)]
    for name in trainings:
        if name not in CHOICES:
            raise ValueError(f"trainings: got {name!r}, expected some of {', '.join(CHOICES)}")
        if name != STANDARD:
            strengths = TRAININGS[name].small if pixels <= 64 else TRAININGS[name].large
            found += [Trained(name, s) for s in strengths[1 :: 1 if name.startswith("pgd") else 2]]
    return found


def train_network(
    network: Trained,
    make: Callable[[], nn.Module],
    train: Split,
    training: Training,
    folder: Path,
    device: torch.device,
) -> nn.Module:
    """``network`` in evaluation mode on the CPU; trained once, then read from ``folder``, as are its teachers.

    Raises:
        ValueError: the training diverged.
    """

    def kept(path: Path, recipe: Callable[[], Recipe]) -> nn.Module:
        if not path.is_file():
            trained = fit(make, recipe(), train, training, seed=SEED, device=device)
            write_weights(path, trained.state_dict())
        module = make()
        module.load_state_dict(read_weights(path))
        return module.eval()

    def teach(name: str, recipe: Recipe) -> nn.Module:
        return kept(folder / "teachers" / f"{name}.pt", lambda: recipe)

    def recipe() -> Recipe:
        # Strength 0 is plain training, whatever the method.
        method = "lipschitz" if network.training == STANDARD else network.training
        return make_recipe(method, network.strength, train, teach, folder / "targets")

    try:
        return kept(network.file(folder, ".pt"), recipe)
    except Diverged as error:
        raise ValueError(f"{network.name}: {error}") from error


def gradients_of(module: nn.Module, device: torch.device) -> MapFunction:
    """The signed gradient of the score of the class that ``module`` itself predicts."""
    module = module.to(device)

    def gradient(images: Tensor, _targets: Tensor) -> Tensor:
        with torch.no_grad():
            own = module(images).argmax(1)
        return Saliency(module).attribute(images, target=own, abs=False)

    return gradient


def measure_network(network: Trained, module: nn.Module, test: Split, folder: Path, device: torch.device) -> None:
    """Write what is known of ``network`` into a file, once: accuracy, and medians over the first test images.

    distance, with its interval; and for "signed" and "absolute" gradients alignment, null (what other images' maps
    score) and rank (the share of these that score lower).
    """
    path = network.file(folder, ".json")
    if path.is_file():
        return
    images = test.images[:MEASURED].to(device)
    gradients = gradients_of(module, device)(images.clone().requires_grad_(), test.labels).detach()
    found: dict[str, Any] = {"accuracy": count_correct(module.to(device), test, device) / len(test)}
    names = ("distance", "distance_low", "distance_high")
    found |= zip(names, median_interval(adversarial_distance(module, images).distance), strict=True)
    for kind, maps in {"signed": gradients, "absolute": gradients.abs()}.items():
        chance = alignment_null(images, maps)
        for name in ("alignment", "null", "rank"):
            found[f"{kind}_{name}"] = median_interval(getattr(chance, name))[0]
    write_json(path, found)


def read_measures(network: Trained, folder: Path) -> dict[str, Any]:
    known = json.loads(network.file(folder, ".json").read_text("utf-8"))
    return {"network": network.name, "training": network.training, "strength": network.strength, **known}
