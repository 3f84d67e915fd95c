"""Measuring the parts of a plan, one by one, in batches that fit into memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_alignment.study.evaluation._attributions import measure_attributions
from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._chance import ChanceLevels, Explained
from captum_alignment.study.evaluation._gallery import ATTRIBUTION, GalleryMaps
from captum_alignment.study.evaluation._maps import GroupMaps, Maps
from captum_alignment.study.evaluation._measure import measure, usable_scores
from captum_alignment.study.evaluation._plan import Plan
from captum_alignment.study.evaluation._records import typed
from captum_alignment.study.load import Sample

#: Column of the records: attribute of a sample.
_IDENTITY = {"sample": "index", "id": "id", "label": "label"}


@dataclass
class Work:
    """A plan being carried out."""

    plan: Plan
    batch_size: BatchSize
    gallery: GalleryMaps

    def __post_init__(self) -> None:
        self._levels = ChanceLevels(self.plan, self.batch_size)
        # A copy, because an attribution may need more memory than attacks, which gain from large batches.
        self._maps_size = copy(self.batch_size)
        self._maps = GroupMaps(self.plan, self._maps_size)

    def parts(self, numbers: Iterable[int], bar: Any) -> Iterator[tuple[int, pd.DataFrame]]:
        """Each part with its records, in the order of its samples; workers read the next part meanwhile."""
        workers = self.plan.config.num_workers
        ahead: deque[tuple[int, int]] = deque()  # the parts being read, and their sizes

        def lists() -> Iterator[list[int]]:
            for number in numbers:
                indices = self.plan.part(number)
                ahead.append((number, len(indices)))
                share = -(-len(indices) // max(workers, 1))  # of a part for each worker
                yield from (indices[start : start + share] for start in range(0, len(indices), share))

        read: list[Sample] = []
        for samples in self.plan.samples.batches(lists(), workers=workers):
            read += samples
            if len(read) == ahead[0][1]:
                yield ahead.popleft()[0], self._records(read, bar)
                read = []

    def _records(self, read: Sequence[Sample], bar: Any) -> pd.DataFrame:
        self._check(read)
        good = [sample for sample in read if sample.error is None]
        failed = [sample for sample in read if sample.error is not None]
        tables, gradients = [], []
        for table, gradient in self.batch_size.over(good, self._measure):
            tables.append(table)
            gradients.append(gradient)
            bar.update(len(table))
        if tables:
            table = pd.concat(tables, ignore_index=True)
            explained = _explained(table, good, torch.cat(gradients))
            chance = self._levels.columns(explained)
            columns = {name: table["sample"].map(of).astype(float) for name, of in chance.items() if of}
            # Joined and not assigned: pandas warns of tables with many columns that grow by one at a time.
            table = pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)
            tables = [table.join(self._attributions(explained), on="sample")]
        if failed:
            tables.append(typed(pd.DataFrame({**_identity(failed), "error": [sample.error for sample in failed]})))
            bar.update(len(failed))
        frame = typed(pd.concat(tables, ignore_index=True))
        if self.plan.config.strict and frame["error"].notna().any():
            first = frame[frame["error"].notna()].iloc[0]
            raise ValueError(f"dataset: sample {first['sample']} ({first['id']}): {first['error']}")
        return frame.sort_values("sample", ignore_index=True)

    def finish_gallery(self, records: pd.DataFrame) -> dict[str, np.ndarray]:
        """The arrays of the gallery; samples whose maps are not at hand, as another process has them, are repeated."""
        again = [self.plan.samples[index] for index in self.gallery.missing(records)]
        again = [sample for sample in again if sample.error is None]
        found = list(self.batch_size.over(again, self._measure))
        if found and self.plan.attributions:
            table, gradients = pd.concat([one for one, _ in found]), torch.cat([gradients for _, gradients in found])
            explained = _explained(table, again, gradients)
            self._keep(explained, self._maps.of(explained))
        return self.gallery.arrays(records)

    def _measure(self, samples: Sequence[Sample]) -> tuple[pd.DataFrame, Tensor]:
        """A row and a gradient for each sample; an error and NaN where the model has no scores for it."""
        images = torch.stack([s.image for s in samples if s.image is not None]).to(self.plan.like)
        good = usable_scores(self.plan.model, images)
        gradients = torch.full(images.shape, torch.nan)
        frame = pd.DataFrame(index=range(len(images)))
        if good.any():
            table, maps = measure(self.plan.model, images[good], self.plan.config)
            gradients[good.cpu()] = maps["gradient"].float()
            rows = good.nonzero().flatten().tolist()
            maps["image"] = images[good].cpu()
            self.gallery.remember([samples[row].index for row in rows], table["distance"], maps)
            table.index = pd.Index(rows)
            frame = table.reindex(frame.index)
        errors = [None if fine else "the model's scores are NaN or infinite" for fine in good.tolist()]
        return typed(frame.assign(**_identity(samples), error=errors)), gradients

    def _attributions(self, explained: Mapping[int, Explained]) -> pd.DataFrame:
        """The columns of the attributions, by sample; missing where the model has no scores."""
        frames = [pd.DataFrame(index=pd.Index([], dtype=int))]
        for group in self._levels.groups(explained) if self.plan.attributions else ():
            found = self._maps.of(group)
            self._keep(group, found)
            frames.append(measure_attributions(self.plan, group, explained, found, self._maps_size))
        return pd.concat(frames)

    def _keep(self, group: Mapping[int, Explained], found: Mapping[str, Maps]) -> None:
        """The maps of the attributions for the gallery."""
        self.gallery.add(list(group), {f"{ATTRIBUTION}{name}": one.maps for name, one in found.items()})

    def _check(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            if sample.label is not None and not 0 <= sample.label < self.plan.classes:
                raise ValueError(
                    f"dataset: sample {sample.index} ({sample.id}) has label {sample.label}, "
                    f"the model has classes 0 to {self.plan.classes - 1}"
                )


def _explained(measured: pd.DataFrame, samples: Sequence[Sample], gradients: Tensor) -> dict[int, Explained]:
    """The ``samples`` that have a prediction, by their index."""
    classes = measured["prediction"] if "prediction" in measured else pd.Series(pd.NA, index=measured.index)
    return {
        sample.index: Explained(sample.image, gradient, int(label))
        for sample, gradient, label in zip(samples, gradients, classes, strict=True)
        if sample.image is not None and not pd.isna(label)
    }


def _identity(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    return {name: [getattr(sample, attribute) for sample in samples] for name, attribute in _IDENTITY.items()}
