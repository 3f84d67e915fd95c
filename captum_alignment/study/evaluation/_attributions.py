"""What is measured of the attributions that a user names, sample by sample."""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from captum_alignment.metrics import (
    alignment_null,
    deletion_curve,
    pointing_game,
    randomization_check,
    rank_correlation,
    relevance_mass_accuracy,
)
from captum_alignment.study.evaluation._batches import BatchSize, is_out_of_memory
from captum_alignment.study.evaluation._chance import Explained
from captum_alignment.study.evaluation._columns import (
    AGREEMENT,
    DELETION,
    FAILED,
    MASK,
    MASS,
    OF_RANDOM,
    POINTING,
    RANDOMIZED,
    SECONDS,
    SENSITIVITY,
    of_attribution,
)
from captum_alignment.study.evaluation._maps import Maps, only, run, stacked, targets_for
from captum_alignment.study.evaluation._plan import Plan
from captum_alignment.study.load import NamedAttribution

#: Radius, relative to the range of the values, and number of the perturbations of the stability. Captum has ten, of
#: which each costs a map: with integrated gradients a minute for a photograph.
_RADIUS, _PERTURBED = 0.02, 3


def measure_attributions(
    plan: Plan, group: Mapping[int, Explained], part: Collection[int], found: Mapping[str, Maps], batch_size: BatchSize
) -> pd.DataFrame:
    """The columns of the samples of ``group`` that are in ``part``, by their index; ``found`` are the group's maps.

    A sample without a map has the reason in ``failed:<method>`` and no numbers. What is drawn for a sample is seeded by
    its index, and its others are the whole group, so that nothing depends on the part or the batch.
    """
    images, targets = stacked(group, plan.like)
    filling = images.mean([0, *range(2, images.ndim)])
    draws = _uniform(group, (1 + _PERTURBED, *images.shape[1:]))
    wanted = torch.tensor([index in part for index in group])
    columns: dict[str, np.ndarray] = {}

    def put(name: str, values: Tensor, rows: Tensor) -> None:
        columns[name] = np.full(len(group), np.nan)
        columns[name][rows.numpy()] = values.detach().cpu().double().numpy()

    def deletion(maps: Tensor, of: Tensor) -> Tensor:
        ranking, x, classes = _without_ties(maps, draws[of, 0]), images[of], targets[of]

        def area(rows: slice) -> Tensor:
            return deletion_curve(plan.model, x[rows], ranking[rows], classes[rows], baselines=filling).area

        return torch.cat(list(batch_size.over_rows(len(x), area)))

    masks = _masks(plan, group, wanted)
    if masks is not None:
        area = masks.double().mean((1, 2))
        put(MASK, torch.where(area > 0, area, torch.nan), wanted)
    put(OF_RANDOM, deletion(draws[wanted, 0], wanted), wanted)
    for method in plan.attributions:
        name, own = method.name, found[method.name]
        maps, good = own.maps, torch.tensor([not why for why in own.failed])
        rows = good & wanted
        if rows.any():
            chance = alignment_null(images[good], maps[good], norm=plan.config.norm)
            for quantity in ("alignment", "null", "excess", "rank"):
                put(f"{of_attribution(quantity)}{name}", getattr(chance, quantity), good)
            x, classes = images[rows], targets[rows]
            put(f"{DELETION}{name}", deletion(maps[rows], rows), rows)
            put(f"{RANDOMIZED}{name}", _similarity_when_random(method, plan.model, x, classes, batch_size), rows)
            put(
                f"{SENSITIVITY}{name}",
                _sensitivity(plan, method, x, maps[rows], classes, draws[rows, 1:].to(x), batch_size),
                rows,
            )
        if masks is not None:
            put(f"{MASS}{name}", relevance_mass_accuracy(maps[wanted], masks), wanted)
            put(f"{POINTING}{name}", pointing_game(maps[wanted], masks), wanted)
        columns[f"{SECONDS}{name}"] = np.where(good.numpy(), own.seconds, np.nan)
        columns[f"{FAILED}{name}"] = np.array([why or None for why in own.failed], dtype=object)
    for one, other in combinations(found, 2):
        put(
            f"{AGREEMENT}{one} & {other}", rank_correlation(found[one].maps, found[other].maps), torch.ones_like(wanted)
        )
    return pd.DataFrame(columns, index=pd.Index(list(group))).loc[wanted.numpy()]


def _masks(plan: Plan, group: Mapping[int, Explained], wanted: Tensor) -> Tensor | None:
    """The masks (n, H, W) of the ``wanted`` samples, where a run has any; an empty one where a sample has none."""
    if plan.masks is None:
        return None
    nothing = torch.zeros(plan.like.shape[2:], dtype=torch.bool)
    found = (plan.masks[index] for index, one in zip(group, wanted.tolist(), strict=True) if one)
    return torch.stack([nothing if mask is None else mask.cpu() for mask in found])


def _uniform(indices: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Numbers in [0, 1), (n, *shape), of each sample by its index."""
    return torch.stack([torch.rand(shape, generator=torch.Generator().manual_seed(index)) for index in indices])


def _without_ties(maps: Tensor, draws: Tensor) -> Tensor:
    """The rank (n, 1, ...) of every pixel by the size of ``maps``; among equals the sample's own ``draws`` decide."""
    sizes, chance = (one.abs().sum(1, keepdim=True) if one.ndim > 2 else one.abs() for one in (maps, draws))
    keys = [one.flatten(1).cpu().double().numpy() for one in (chance, sizes)]
    ranks = np.lexsort(keys).argsort(1).reshape(sizes.shape)
    return torch.from_numpy(ranks).to(maps.device, torch.float32)


def _similarity_when_random(
    method: NamedAttribution, model: Any, x: Tensor, targets: Tensor, batch_size: BatchSize
) -> Tensor:
    """Rank correlation with the maps of the network without what it learnt; NaN where there is no such network.

    All layers at once: the end of the cascade, which costs a map for each layer.
    """
    unknown = torch.full((len(x),), torch.nan)
    if not (method.own and isinstance(model, nn.Module)):
        return unknown

    def similarity(rows: slice) -> Tensor:
        return randomization_check(model, method.function, x[rows], targets[rows], layers=("",)).similarity[0]

    try:
        return torch.cat(list(batch_size.over_rows(len(x), similarity)))
    except (ValueError, TypeError, RuntimeError):  # no parameters, no copy, or a method that knows one network only
        return unknown


def _sensitivity(
    plan: Plan, method: NamedAttribution, x: Tensor, maps: Tensor, targets: Tensor, draws: Tensor, batch_size: BatchSize
) -> Tensor:
    """Captum's sensitivity_max (Yeh et al. 2019) by the perturbations ``draws`` (n, P, ...), numbers in [0, 1).

    NaN where the method fails on images that are perturbed.
    """
    low, high = plan.config.bounds
    radius = _RADIUS * (high - low if np.isfinite(high - low) else 1)
    goal, size = targets_for(plan, targets), maps.flatten(1).norm(dim=1)
    size = torch.where(size == 0, 1, size)

    def change(rows: slice, delta: Tensor) -> Tensor:
        try:
            found = run(method, plan.model, x[rows] + delta[rows], only(goal, rows)) - maps[rows]
        except (Exception, SystemExit) as error:  # foreign code
            if is_out_of_memory(error):
                raise
            return torch.full_like(size[rows], torch.nan)
        return found.flatten(1).norm(dim=1) / size[rows]

    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(0)  # as the maps
        changes = [
            torch.cat(list(batch_size.over_rows(len(x), partial(change, delta=delta))))
            for delta in (radius * (2 * draws - 1)).unbind(1)
        ]
    return torch.stack(changes).amax(0)
