"""What chance would give: a sample among the same others, however the samples are cut into parts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_alignment import linear_analysis
from captum_alignment.metrics import alignment_null, alignment_null_of_maps, exchangeability_test
from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._measure import usable_scores
from captum_alignment.study.evaluation._plan import Plan
from captum_alignment.study.load import Sample

_COLUMNS = ("null", "excess", "rank", "map_null", "class_excess", "class_variance")


class Explained(NamedTuple):
    """An image (C, H, W) on the CPU, the gradient of its predicted class, and that class."""

    image: Tensor
    gradient: Tensor
    prediction: int


class ChanceLevels:
    """The chance levels of the samples of ``plan``, whose groups are each other's others.

    Where a part is not a whole group, the gradients of the rest are taken again: one forward and two backward passes.
    """

    def __init__(self, plan: Plan, batch_size: BatchSize) -> None:
        self.plan, self.batch_size = plan, batch_size
        self._latest: tuple[int, dict[int, Explained]] = -1, {}

    def groups(self, explained: Mapping[int, Explained]) -> Iterator[dict[int, Explained]]:
        """The groups of the samples of a part, each with all members that have a prediction, by their index."""
        for group in sorted({self.plan.group_of(index) for index in explained}):
            members = self.plan.group(group)
            known = {} if all(index in explained for index in members) else self._group(group)
            found = {index: explained.get(index) or known.get(index) for index in members}
            yield {index: one for index, one in found.items() if one}

    def columns(self, explained: Mapping[int, Explained]) -> dict[str, dict[int, float]]:
        """The columns of the records, of each sample of a part by its index; a sample without a gradient has none."""
        columns: dict[str, dict[int, float]] = {name: {} for name in _COLUMNS}
        for group in self.groups(explained):
            usable = {index: one for index, one in group.items() if one.gradient.isfinite().all()}
            if not usable:
                continue
            for name, values in self._of(list(usable.values())).items():
                columns[name] |= {i: v for i, v in zip(usable, values, strict=True) if i in explained}
        return columns

    def _of(self, group: Sequence[Explained]) -> dict[str, list[float]]:
        images, norm = torch.stack([one.image for one in group]), self.plan.config.norm
        maps = torch.stack([one.gradient for one in group]).to(images)
        chance = alignment_null(images, maps, norm=norm)
        columns = {name: getattr(chance, name) for name in ("null", "excess", "rank")}
        columns["map_null"] = alignment_null_of_maps(images, maps, norm=norm)
        labels = torch.tensor([one.prediction for one in group])
        if labels.bincount().max() > 1:
            test = exchangeability_test(images, maps, labels, norm=norm, permutations=0)
            columns |= {"class_excess": test.excess, "class_variance": test.variance}
        return {name: column.double().tolist() for name, column in columns.items()}

    def _group(self, group: int) -> dict[int, Explained]:
        """All explained members of a group by their index; the latest one is kept, because parts come in this order."""
        if self._latest[0] != group:
            samples = [self.plan.samples[index] for index in self.plan.group(group)]
            good = [sample for sample in samples if sample.image is not None]
            parts = self.batch_size.over(good, self._explain)
            self._latest = group, {index: one for part in parts for index, one in part.items()}
        return self._latest[1]

    def _explain(self, samples: Sequence[Sample]) -> dict[int, Explained]:
        images = torch.stack([sample.image for sample in samples if sample.image is not None])
        good = usable_scores(self.plan.model, images.to(self.plan.like)).cpu()
        if not good.any():
            return {}
        analysis = linear_analysis(self.plan.model, images[good].to(self.plan.like), candidates=1)
        gradients, classes = analysis.gradient.detach().cpu().float(), analysis.target.tolist()
        rows = good.nonzero().flatten().tolist()
        return {samples[row].index: Explained(images[row], gradients[k], classes[k]) for k, row in enumerate(rows)}
