"""One evaluated model: its records, its gallery, and what its manifest says about it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_alignment.study.evaluation._columns import BY_ATTACK

Array: TypeAlias = NDArray[Any]

_NORMS = {"1": "l₁", "2": "l₂", "inf": "l∞"}


class Records(Protocol):
    """The part of a `pd.DataFrame` that a report needs; ``len`` is the number of rows."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __contains__(self, name: Any, /) -> bool: ...
    def __getitem__(self, name: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Run:
    """What one evaluation left in its folder.

    Attributes:
        name: the folder's name.
        manifest: its JSON; any key may be missing.
        records: one row per sample: a frame, or what reads columns when they are asked for. ``error`` says why a sample
            could not be measured, all else of its row is missing.
        gallery: kind ("least" or "most" robust), sample, and the maps (G, C, H, W) of G samples; may be empty.
    """

    name: str
    manifest: dict[str, Any]
    records: Records
    gallery: dict[str, np.ndarray]

    @property
    def config(self) -> dict[str, Any]:
        config = self.manifest.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def norm(self) -> str:
        """The sign of the norm of the perturbations."""
        value = self.config.get("norm", "")
        text = f"{value:g}" if isinstance(value, float | int) else str(value)
        return _NORMS.get(text, text)

    @property
    def classes(self) -> Sequence[str] | None:
        classes = self.config.get("classes")
        return [str(name) for name in classes] if isinstance(classes, list) else None

    @cached_property
    def errors(self) -> pd.DataFrame:
        """sample, id and error of the samples that could not be measured."""
        return self.rows(self._failed, ("sample", "id", "error"))

    @property
    def measured(self) -> int:
        """How many samples were measured."""
        return int((~self._failed).sum())

    def rows(self, mask: Array, names: Iterable[str] | None = None) -> pd.DataFrame:
        """The rows where ``mask`` (N,) is set, with the columns ``names`` as far as they are there, or all."""
        chosen = [name for name in self.records if names is None or name in names]
        return pd.DataFrame({name: self.records[name].to_numpy()[mask] for name in chosen})

    @cached_property
    def _failed(self) -> Array:
        if "error" not in self.records:
            return np.zeros(len(self.records), dtype=bool)
        return self.records["error"].notna().to_numpy(bool)

    @property
    def attacks(self) -> list[str]:
        """Those that ran on every measured sample; only they have comparable medians."""
        columns = [str(name) for name in self.records if str(name).startswith(BY_ATTACK)]
        return [name.removeprefix(BY_ATTACK) for name in columns if not np.isnan(self.values(name)).any()]

    @property
    def labelled(self) -> Array:
        """(n,): which measured samples have a label."""
        return ~np.isnan(self.values("label"))

    @property
    def correct(self) -> Array:
        """(n,): which measured samples are predicted as labelled."""
        return self.values("label") == self.values("prediction")

    def values(self, name: str) -> Array:
        """A column of the measured samples (n,) as floats, NaN where it is missing."""
        if name not in self.records:
            return np.full(self.measured, np.nan)
        return self.records[name].to_numpy(float, na_value=np.nan)[~self._failed]
