"""The maps of the samples that a report shows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

#: Prefix of the maps of the attributions that were asked for.
ATTRIBUTION = "attribution:"
#: Of the samples with the smallest and of those with the largest distance, so many are shown.
_SIZE = 6


class GalleryMaps:
    """Maps of the samples that may be shown, kept while a model is measured; never more than a dozen.

    Args:
        chosen: the samples to show; None: those with the smallest and those with the largest finite distance.
    """

    def __init__(self, chosen: Sequence[int] | None = None) -> None:
        self.chosen = None if chosen is None else list(chosen)
        self._kept: dict[int, tuple[float, dict[str, np.ndarray]]] = {}
        self._wanted: set[int] | None = None if chosen is None else {*chosen}

    def remember(self, indices: Sequence[int], distances: pd.Series, maps: Mapping[str, Tensor]) -> None:
        """The maps (n, C, H, W) of n samples, as far as they may be shown."""
        for row, (index, distance) in enumerate(zip(indices, distances, strict=True)):
            if self._wanted is None or index in self._wanted:
                # A copy, because a view would keep the whole batch in memory.
                self._kept[index] = distance, {name: maps[name][row].float().numpy().copy() for name in maps}
        if self._wanted is None:
            shown = _extremes(list(self._kept), [distance for distance, _ in self._kept.values()])
            self._kept = {index: self._kept[index] for group in shown.values() for index in group}

    def add(self, indices: Sequence[int], maps: Mapping[str, Tensor]) -> None:
        """More maps (n, C, H, W) of n samples, of those that are kept."""
        for row, index in enumerate(indices):
            if index in self._kept:
                self._kept[index][1].update({name: maps[name][row].float().cpu().numpy().copy() for name in maps})

    def missing(self, records: pd.DataFrame) -> list[int]:
        """The samples to show whose maps are not here; from now on these are kept, and no others."""
        self._wanted = {index for group in self._shown(records).values() for index in group}
        return sorted(self._wanted - self._kept.keys())

    def arrays(self, records: pd.DataFrame) -> dict[str, np.ndarray]:
        """kind ("least", "most", "shown") and sample (G,); the maps (G, C, H, W). Nothing for no sample."""
        shown = self._shown(records)
        # A sample may have become unreadable since it was measured.
        pairs = [(kind, index) for kind, group in shown.items() for index in group if index in self._kept]
        if not pairs:
            return {}
        maps = [self._kept[index][1] for _, index in pairs]
        return {
            "kind": np.array([kind for kind, _ in pairs]),
            "sample": np.array([index for _, index in pairs]),
            **{name: np.stack([of[name] for of in maps]) for name in maps[0]},
        }

    def _shown(self, records: pd.DataFrame) -> dict[str, list[int]]:
        if "distance" not in records:
            return {}  # nothing could be measured
        if self.chosen is None:
            return _extremes(records["sample"].tolist(), records["distance"].tolist())
        measured = set(records["sample"][records["distance"].notna()])
        return {"shown": [index for index in self.chosen if index in measured]}


def _extremes(indices: Sequence[int], distances: Sequence[float]) -> dict[str, list[int]]:
    """The samples with the smallest and with the largest finite distance, the most extreme first; ties by index."""
    found = sorted(
        (distance, index) for distance, index in zip(distances, indices, strict=True) if np.isfinite(distance)
    )
    order = [index for _, index in found]
    return {"least": order[:_SIZE], "most": order[_SIZE:][::-1][:_SIZE]}
