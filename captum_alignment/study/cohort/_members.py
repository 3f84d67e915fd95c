"""The networks of a study by their coordinates: how each is trained, at which strength, and from which seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_alignment.study.compare import COORDINATES, EVALUATIONS
from captum_alignment.study.fit import STANDARD


@dataclass(frozen=True)
class Member:
    """One network of a study."""

    training: str
    strength: float
    seed: int

    @property
    def network(self) -> str:
        """What it is called beside networks of the same seed."""
        return self.training if self.training == STANDARD else f"{self.training}-{self.strength:g}"

    @property
    def name(self) -> str:
        return f"{self.network}_seed-{self.seed}"

    @property
    def coordinates(self) -> dict[str, Any]:
        return dict(zip(COORDINATES, (self.training, self.strength, self.seed), strict=True))

    def weights_file(self, folder: Path) -> Path:
        return folder / "models" / f"{self.name}.pt"

    def evaluation_folder(self, folder: Path) -> Path:
        return folder / EVALUATIONS / self.name


def make_members(trainings: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[Member]:
    """The networks of ``trainings`` at their strengths: plain ones once, then by training, strength and seed."""
    networks = [(name, strength) for name, strengths in trainings.items() for strength in sorted(strengths)]
    shared = dict.fromkeys((name, strength) if strength else (STANDARD, 0.0) for name, strength in networks)
    order = sorted(shared, key=lambda network: network[1] > 0)
    return [Member(name, strength, seed) for name, strength in order for seed in seeds]
