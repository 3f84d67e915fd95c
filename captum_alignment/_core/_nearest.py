"""The nearest rival: the class whose linearized decision boundary is closest."""

from dataclasses import replace

import torch
from torch import Tensor

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._rivals import NearestRival, concatenate, loop
from captum_alignment._core._scores import gaps
from captum_alignment._core._sketch import SketchSearch

#: Up to this many rivals, one backward pass each is cheaper than a sketch.
LOOP_RIVALS = 64
#: Input features that one sketch takes on, on an accelerator and on a CPU.
_SEARCH_FEATURES = (2**27, 2**17)


def nearest_rival(
    graph: ScoreGraph,
    target: Tensor,
    norm: float,
    candidates: int | None = None,
    generator: torch.Generator | None = None,
) -> NearestRival:
    """The minimum over the rivals of ``target`` (N,), or over the ``candidates`` with the smallest gaps.

    Few rivals, and l_1 perturbations, are searched in order of their gap, one backward pass each. Many rivals are
    searched by `SketchSearch`, which finds the same minimum except with a probability of at
    most 1e-6 per sample. Rivals with a negative gap (a target that is not the top class) make the minimum negative:
    then only they matter, and each is measured. A tie is the minimum at once.
    """
    gap = gaps(graph.scores.detach(), target)
    if candidates is not None and candidates < gap.shape[1] - 1:
        last = gap.kthvalue(candidates, dim=1, keepdim=True).values
        gap = gap.masked_fill(gap > last, torch.inf)
    rivals = gap.isfinite().sum(1)
    limit = gap.shape[1] - 1 if candidates is None else min(candidates, gap.shape[1] - 1)
    if norm == 1 or limit <= LOOP_RIVALS:
        return loop(graph, target, gap, norm, torch.full_like(rivals, limit))
    below, tied = (gap < 0).sum(1), (gap == 0).any(1)
    # Where some gap is negative, 0 or the only finite one, the loop is short; the others are worth a sketch.
    short = (below > 0) | tied | (rivals <= LOOP_RIVALS)
    counts = torch.where(below > 0, below, torch.where(tied, 1, rivals.clamp(min=1)))
    groups = [group for group in (short.nonzero().flatten(), (~short).nonzero().flatten()) if len(group)]
    parts = []
    for group in groups:
        part = graph if len(groups) == 1 else graph.subset(group)
        if short[group[0]]:
            found = loop(part, target[group], gap[group], norm, counts[group])
        else:
            found = _sketch(part, target[group], gap[group], norm, generator)
        parts.append(replace(found, passes=found.passes + (len(groups) - 1)))
    return concatenate(parts, torch.cat(groups).argsort())


def _sketch(
    graph: ScoreGraph, target: Tensor, gap: Tensor, norm: float, generator: torch.Generator | None
) -> NearestRival:
    n = len(target)
    features = sum(x[0].numel() for x in graph.inputs)
    size = max(1, _SEARCH_FEATURES[graph.scores.device.type == "cpu"] // features)
    if n > size:
        # Few large samples at a time keep to the caches and do not wait for each other; it costs one forward pass.
        parts = torch.arange(n, device=target.device).split(size)
        found = [_sketch(graph.subset(part), target[part], gap[part], norm, generator) for part in parts]
        return concatenate([replace(part, passes=part.passes + 1) for part in found])
    try:
        return SketchSearch(graph, target, gap, norm, generator).run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # some operation has neither a forward-mode nor a second derivative
        return loop(graph, target, gap, norm, torch.full_like(target, gap.shape[1] - 1))
