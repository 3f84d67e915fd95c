"""What is measured of the attributions that a user names, sample by sample."""

import time
import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from captum.metrics import sensitivity_max
from torch import Tensor, nn

from captum_alignment.metrics import alignment_null, deletion_curve, randomization_check, rank_correlation
from captum_alignment.study.evaluation._columns import (
    AGREEMENT,
    DELETION,
    FAILED,
    OF_RANDOM,
    RANDOMIZED,
    SECONDS,
    SENSITIVITY,
    of_attribution,
)
from captum_alignment.study.evaluation._config import EvaluationConfig
from captum_alignment.study.load import NamedAttribution, reason

#: Radius and number of the perturbations of the stability, the radius relative to the range of the values.
_RADIUS, _PERTURBED = 0.02, 10


def measure_attributions(
    model: Any,
    images: Tensor,
    targets: Tensor,
    methods: Sequence[NamedAttribution],
    config: EvaluationConfig,
    *,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """The columns of the attributions ``methods`` of the samples (n, ...) of one part, explained for ``targets`` (n,).

    A sample on which a method raises, or whose map is not finite, has the reason in ``failed:<method>`` and no numbers.

    Raises:
        ValueError: maps that are not shaped like the images.
    """
    with torch.no_grad():
        single = model(images[:1].clone()).numel() == 1  # for which Captum takes no target
    explained = None if single else targets
    filling = images.mean([0, *range(2, images.ndim)])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    columns = {OF_RANDOM: _numbers(_deletion(model, images, noise, targets, filling, batch_size))}
    found: dict[str, Tensor] = {}
    for method in methods:
        maps, failed, seconds = _maps(method, model, images, explained, batch_size)
        good = torch.tensor([not why for why in failed])
        found[method.name] = maps
        own: dict[str, Tensor] = {}
        if good.any():
            x, attributions, classes = images[good], maps[good], targets[good]
            chance = alignment_null(x, attributions, norm=config.norm)
            own = {of_attribution(name): getattr(chance, name) for name in ("alignment", "null", "excess", "rank")}
            own[DELETION] = _deletion(model, x, attributions, classes, filling, batch_size)
            own[RANDOMIZED] = _similarity_when_random(method, model, x, classes)
            own[SENSITIVITY] = _sensitivity(method, model, x, None if single else classes, config)
        columns |= {f"{family}{method.name}": _spread(values, good) for family, values in own.items()}
        columns[f"{SECONDS}{method.name}"] = np.where(good.numpy(), seconds, np.nan)
        columns[f"{FAILED}{method.name}"] = np.array([why or None for why in failed], dtype=object)
    for one, other in combinations(found, 2):
        columns[f"{AGREEMENT}{one} & {other}"] = _numbers(rank_correlation(found[one], found[other]))
    return columns


def _maps(
    method: NamedAttribution, model: Any, images: Tensor, targets: Tensor | None, batch_size: int
) -> tuple[Tensor, list[str], float]:
    """The maps (n, ...), NaN where there is none; why there is none; seconds for one map."""
    maps, failed, seconds = torch.full_like(images, torch.nan), [""] * len(images), 0.0

    def run(rows: slice) -> None:
        nonlocal seconds
        start = time.perf_counter()
        found = _run(method, model, images[rows], None if targets is None else targets[rows])
        seconds += time.perf_counter() - start
        maps[rows] = found

    for start in range(0, len(images), batch_size):
        rows = range(start, min(start + batch_size, len(images)))
        try:
            run(slice(rows.start, rows.stop))
        except _Misshapen:
            raise
        except (Exception, SystemExit):  # foreign code, and one sample may be the cause
            for row in rows:
                try:
                    run(slice(row, row + 1))
                except _Misshapen:
                    raise
                except (Exception, SystemExit) as error:
                    failed[row] = reason(error)
    for row in (~maps.flatten(1).isfinite().all(1)).nonzero().flatten().tolist():
        maps[row] = torch.nan
        failed[row] = failed[row] or "the map is not finite"
    return maps, failed, seconds / len(images)


def _run(method: NamedAttribution, model: Any, images: Tensor, targets: Tensor | None) -> Tensor:
    """The maps of ``images``, on a copy that requires grad, for which most of Captum asks."""
    with torch.enable_grad():
        found = method.function(model, images.detach().clone().requires_grad_(), targets)
    what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    expected, one_channel = tuple(images.shape), (len(images), 1, *images.shape[2:])
    if not isinstance(found, Tensor) or what not in (expected, one_channel):
        raise _Misshapen(f"attributions: {method.name} returned {what}, expected {expected}, as its images")
    return found.detach().to(images).expand_as(images)


class _Misshapen(ValueError):
    """Maps that are none of the images: a mistake in the method, not a failure on a sample."""


def _deletion(model: Any, x: Tensor, maps: Tensor, targets: Tensor, filling: Tensor, batch_size: int) -> Tensor:
    return deletion_curve(
        model, x, maps, targets, baselines=filling, absolute=True, internal_batch_size=batch_size
    ).area


def _similarity_when_random(method: NamedAttribution, model: Any, x: Tensor, targets: Tensor) -> Tensor:
    """Rank correlation with the maps of the network without what it learnt; NaN where there is no such network."""
    nothing = torch.full((len(x),), torch.nan)
    if not (method.own and isinstance(model, nn.Module)):
        return nothing
    try:
        return randomization_check(model, method.function, x, targets, layers=("",)).similarity[0]
    except (ValueError, TypeError, RuntimeError):  # no parameters, no copy, or a method that knows one network only
        return nothing


def _sensitivity(
    method: NamedAttribution, model: Any, x: Tensor, targets: Tensor | None, config: EvaluationConfig
) -> Tensor:
    """Captum's sensitivity_max; NaN where the method fails on images that are perturbed."""
    low, high = config.bounds
    radius = _RADIUS * (high - low if np.isfinite(high - low) else 1)

    def maps(inputs: tuple[Tensor, ...], target: Any = None) -> tuple[Tensor]:
        return (_run(method, model, inputs[0], target),)

    options: dict[str, Any] = {} if targets is None else {"target": targets}
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            return sensitivity_max(
                maps,  # pyright: ignore[reportArgumentType] - its stub has another form of a function
                (x.clone(),),  # pyright: ignore[reportArgumentType] - a tuple of one tensor is one
                perturb_radius=radius,
                n_perturb_samples=_PERTURBED,
                max_examples_per_batch=len(x),  # or chance would depend on the size of a batch
                **options,
            )
        except (Exception, SystemExit):  # foreign code
            return torch.full((len(x),), torch.nan)


def _spread(values: Tensor, good: Tensor) -> np.ndarray:
    """``values`` of the ``good`` samples among all, NaN elsewhere."""
    column = np.full(len(good), np.nan)
    column[good.numpy()] = _numbers(values)
    return column


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
