"""The maps of the attributions that a user names; foreign code, of which one sample may be the cause of a failure."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_alignment.study.evaluation._batches import BatchSize, is_out_of_memory
from captum_alignment.study.evaluation._chance import Explained
from captum_alignment.study.evaluation._plan import Plan
from captum_alignment.study.load import NamedAttribution, reason


@dataclass(frozen=True)
class Maps:
    """The maps (n, ...) of one method, NaN where there is none; why there is none, else ""; seconds for one map."""

    maps: Tensor
    failed: list[str]
    seconds: float


class Misshapen(ValueError):
    """Maps that are none of the images: a mistake in the method, not a failure on a sample."""


class GroupMaps:
    """The maps of whole groups, because the others of its group are a sample's chance level, whatever its part.

    The latest group is kept: where it has several parts, they come one after the other.
    """

    def __init__(self, plan: Plan, batch_size: BatchSize) -> None:
        self.plan, self.batch_size = plan, batch_size
        self._latest: tuple[tuple[int, ...], dict[str, Maps]] = (), {}

    def of(self, group: Mapping[int, Explained]) -> dict[str, Maps]:
        """The maps of the samples of ``group``, in its order, of every method by its name.

        Raises:
            ValueError: maps that are not shaped like the images.
        """
        if self._latest[0] != tuple(group):
            self._latest = tuple(group), self._make(*stacked(group, self.plan.like))
        return self._latest[1]

    def _make(self, images: Tensor, targets: Tensor) -> dict[str, Maps]:
        plan, size = self.plan, self.batch_size
        goal = targets_for(plan, targets)
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(0)  # of methods that draw from torch's own generator
            return {method.name: make_maps(method, plan.model, images, goal, size) for method in plan.attributions}


def stacked(group: Mapping[int, Explained], like: Tensor) -> tuple[Tensor, Tensor]:
    """The images (n, ...) of a group, as the model takes them, and the classes (n,) that it predicts."""
    images = torch.stack([one.image for one in group.values()]).to(like)
    return images, torch.tensor([one.prediction for one in group.values()], device=like.device)


def targets_for(plan: Plan, targets: Tensor) -> Tensor | None:
    """What Captum takes as targets: None of a model of one output."""
    with torch.no_grad():
        return None if plan.model(plan.like.clone()).numel() == 1 else targets


def make_maps(
    method: NamedAttribution, model: Any, images: Tensor, targets: Tensor | None, batch_size: BatchSize
) -> Maps:
    """The maps of all ``images`` (n, ...); a batch on which the method raises is repeated image by image."""
    maps, failed, begin = torch.full_like(images, torch.nan), [""] * len(images), time.perf_counter()

    def attempt(rows: slice) -> str:
        """Make the maps of ``rows``; why there are none, else ""."""
        try:
            maps[rows] = run(method, model, images[rows], only(targets, rows))
        except Misshapen:
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error) and rows.stop - rows.start > 1:
                raise
            return reason(error)
        return ""

    def make(rows: slice) -> None:
        if attempt(rows):
            for row in range(rows.start, rows.stop):
                failed[row] = attempt(slice(row, row + 1))

    list(batch_size.over_rows(len(images), make))
    lacking = (~maps.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()  # waits for the device
    seconds = (time.perf_counter() - begin) / len(images)
    for row in lacking:
        maps[row] = torch.nan
        failed[row] = failed[row] or "the map is not finite"
    return Maps(maps, failed, seconds)


def run(method: NamedAttribution, model: Any, images: Tensor, targets: Tensor | None) -> Tensor:
    """The maps of ``images``, on a copy that requires grad, for which most of Captum asks."""
    with torch.enable_grad():
        found = method.function(model, images.detach().clone().requires_grad_(), targets)
    what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    expected, one_channel = tuple(images.shape), (len(images), 1, *images.shape[2:])
    if not isinstance(found, Tensor) or what not in (expected, one_channel):
        raise Misshapen(f"attributions: {method.name} returned {what}, expected {expected}, as its images")
    return found.detach().to(images).expand_as(images)


def only(targets: Tensor | None, rows: Any) -> Tensor | None:
    """The ``targets`` of ``rows``, where there are any."""
    return None if targets is None else targets[rows]
