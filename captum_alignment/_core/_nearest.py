"""The nearest rival: the class whose linearized decision boundary is closest."""

from dataclasses import replace

import torch
from torch import Tensor

from captum_alignment._core._gradients import NoDerivative, ScoreGraph
from captum_alignment._core._inputs import Tensors
from captum_alignment._core._rivals import NearestRival, concatenate, loop
from captum_alignment._core._scores import gaps
from captum_alignment._core._sketch import SketchSearch

#: Up to this many rivals, one backward pass each is cheaper than a sketch.
LOOP_RIVALS = 64
#: Input features that one sketch takes on, on a CPU and on an accelerator; and scores, of which it holds a few dozen
#: copies.
_SEARCH_FEATURES = (2**17, 2**22)
_SEARCH_SCORES = (2**21, 2**24)


def nearest_rival(
    graph: ScoreGraph,
    target: Tensor,
    norm: float,
    candidates: int | None = None,
    generator: torch.Generator | None = None,
    own: Tensors | None = None,
) -> NearestRival:
    """The minimum over the rivals of ``target`` (N,), or over the ``candidates`` with the smallest gaps.

    Few rivals, and l_1 perturbations, are searched in order of their gap, one backward pass each. Many rivals are
    searched by `SketchSearch`, which finds the same minimum except with a probability of at most 1e-6 per sample, in at
    most 5 passes more than one per rival. Rivals with a negative gap (a target that is not the top class) make the
    minimum negative: then only they matter, and each is measured. A tie is the minimum at once.

    ``own`` is the gradient of the target's score where it is known: it saves a pass.
    """
    gap = gaps(graph.scores.detach(), target)
    limit = gap.shape[1] - 1 if candidates is None else min(candidates, gap.shape[1] - 1)
    if limit < gap.shape[1] - 1:
        last = gap.kthvalue(limit, dim=1, keepdim=True).values
        gap = gap.masked_fill(gap > last, torch.inf)
    if norm == 1 or limit <= LOOP_RIVALS:
        return loop(graph, target, gap, norm, [limit] * len(target))
    below, tied, finite = torch.stack([(gap < 0).sum(1), (gap == 0).any(1), gap.isfinite().sum(1)]).tolist()
    # Where some gap is negative, 0 or the only finite one, the loop is short; the others, 0 here, are worth a sketch.
    counts = [b or t or (f <= LOOP_RIVALS) * max(f, 1) for b, t, f in zip(below, tied, finite, strict=True)]
    away, features = graph.scores.device.type != "cpu", sum(x[0].numel() for x in graph.inputs)
    size = max(1, min(_SEARCH_FEATURES[away] // features, _SEARCH_SCORES[away] // gap.shape[1]))
    far = [i for i, count in enumerate(counts) if not count]
    # Few large samples at a time keep to the caches and do not wait for each other; it costs one forward pass.
    groups = [[i for i, count in enumerate(counts) if count], *(far[i : i + size] for i in range(0, len(far), size))]
    groups = [group for group in groups if group]
    parts = []
    for group in groups:
        index = torch.tensor(group, device=target.device)
        if spent := len(groups) > 1:
            part, own_part = graph.subset(index), own if own is None else tuple(g[index] for g in own)
        else:
            part, own_part = graph, own
        if counts[group[0]]:
            found = loop(part, target[index], gap[index], norm, [counts[i] for i in group])
            parts.append(replace(found, passes=found.passes + spent))
        else:
            parts.append(_search(part, target[index], gap[index], norm, generator, own_part, int(spent)))
    order = torch.tensor([i for group in groups for i in group], device=target.device).argsort()
    return concatenate(parts, order)


def _search(
    graph: ScoreGraph,
    target: Tensor,
    gap: Tensor,
    norm: float,
    generator: torch.Generator | None,
    own: Tensors | None,
    spent: int,
) -> NearestRival:
    try:
        return SketchSearch(graph, target, gap, norm, generator, own, spent).run()
    except NoDerivative:
        found = loop(graph, target, gap, norm, [gap.shape[1] - 1] * len(target))
        return replace(found, passes=found.passes + spent)
