"""The grid of a ROAR study: a cell for each mode, method, fraction and seed, and the record of each in a file."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from captum_alignment.study.roar._config import MODES
from captum_alignment.study.store import write_json

#: Mode and method of the networks that are trained on the images as they are.
UNMODIFIED = "unmodified"
_NAME = re.compile(r"\w[\w .,()+-]*")


@dataclass(frozen=True)
class Cell:
    """One network to train and test. Its fraction is that of the features that are ranked highest."""

    mode: str
    method: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        if self.mode == UNMODIFIED:
            return f"{UNMODIFIED}_seed-{self.seed}"
        return f"{self.mode}_{self.method}_{self.fraction:g}_seed-{self.seed}"

    def file(self, folder: Path) -> Path:
        return folder / "cells" / f"{self.name}.json"


def make_grid(
    methods: Sequence[str], fractions: Sequence[float], modes: Sequence[str], seeds: Sequence[int]
) -> list[Cell]:
    """All cells, seed by seed, each with one cell of unmodified images.

    Raises:
        ValueError: an empty or repeated choice, an unknown mode, a fraction outside (0, 1), a negative seed, a method's
            name that could not be part of a file's.
    """
    for name, values in {"methods": methods, "fractions": fractions, "modes": modes, "seeds": seeds}.items():
        if not values:
            raise ValueError(f"{name}: got none, expected at least one")
        if len(set(values)) < len(values):
            raise ValueError(f"{name}: got {', '.join(map(str, values))}, expected each once")
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"modes: got {mode!r}, expected {' or '.join(map(repr, MODES))}")
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise ValueError(f"fractions: got {fraction:g}, expected numbers between 0 and 1, neither included")
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise ValueError(f"seeds: got {seed}, expected 0 to {2**31 - 1}")
    for method in methods:
        if not _NAME.fullmatch(method) or method == UNMODIFIED:
            raise ValueError(f"methods: got the name {method!r}, expected letters, digits and any of ' .,()+-'")
    return [
        cell
        for seed in seeds
        for cell in (
            Cell(UNMODIFIED, UNMODIFIED, 0.0, seed),
            *(Cell(mode, method, fraction, seed) for mode in modes for fraction in fractions for method in methods),
        )
    ]


def write_cell(folder: Path, cell: Cell, found: dict[str, Any]) -> None:
    write_json(cell.file(folder), {**asdict(cell), **found})


def missing_cells(folder: Path, grid: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in grid if not cell.file(folder).is_file()]


def read_cells(folder: Path, grid: Sequence[Cell]) -> pd.DataFrame:
    """One row per cell of ``grid``, in its order."""
    return pd.DataFrame([json.loads(cell.file(folder).read_text("utf-8")) for cell in grid])
