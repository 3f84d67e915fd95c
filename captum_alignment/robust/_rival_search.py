"""A search for the nearest adversarial among the nearest rivals, from the input, from far away and from itself."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._foolbox import ScoresModel, class_to_leave, class_to_reach, score_function, subset
from captum_alignment._core._foolbox_names import Model
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import check_count, dual, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack, is_adversarial, nearer
from captum_alignment.robust._fab import fab
from captum_alignment.robust._mean_plane import mean_plane
from captum_alignment.robust._starts import around, starts

#: So many more rivals are linearized than get a short run: the nearest boundary need not be a likely class's.
_MORE = 2
#: The nearest point of all is polished by so many projections, with little retreat between them.
_POLISH, _POLISH_RETREAT = 4, 0.05
#: Samples without any adversarial get this many further starts.
_LAST_STARTS = 6


class RivalSearch(UntargetedAttack):
    """Minimum-norm attack that combines descents toward one rival at a time.

    The rivals with the nearest linearized boundaries get short runs from the input along the mean of the boundaries'
    planes. That is the way on natural networks. On adversarially trained and certified ones gradients near the input
    lead into the wrong valley: so `FAB` comes back to the most likely rivals' boundaries from far away, first from near
    the middle of the bounds, then from noise. Hops from around and beyond the nearest point so far look for a nearer
    one. The nearest of all is polished. Samples on which nothing succeeds (flat around the input) get more starts.

    In Foolbox the criterion may be `Misclassification`, or `TargetedMisclassification` for the nearest image of a given
    class, which is then the only rival.

    Args:
        norm: 1, 2 or inf.
        rivals: at most how many rivals get a short run.
        reach: a rival gets one only if its linearized boundary is nearer than the nearest adversarial times this.
        likely: at most how many rivals get a run from each start that is not the input.
        starts: how many starts of `FAB` far away from the input.
        hops: how many more runs to the nearest point's rival, from points around it and beyond it in turns.
        short, projections, hop: steps of a short run, of `FAB`, and of a hop.

    Raises:
        ValueError: another norm, numbers of runs or steps that are not positive, a reach below 1; at run time another
            criterion.

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = RivalSearch()(model, x, y, epsilons=None)
    >>> adversarials.shape, success.shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    norms = (1, 2, math.inf)

    def __init__(
        self,
        *,
        norm: float = 2,
        rivals: int = 4,
        reach: float = 1.15,
        likely: int = 2,
        starts: int = 1,
        hops: int = 0,
        short: int = 12,
        projections: int = 30,
        hop: int = 24,
    ) -> None:
        super().__init__(norm=norm)
        self.rivals = check_count("rivals", rivals)
        if isinstance(reach, bool) or not isinstance(reach, int | float) or not reach >= 1:
            raise ValueError(f"reach: got {reach!r}, expected a number of at least 1")
        self.reach = reach
        self.likely = check_count("likely", likely)
        self.starts = check_count("starts", starts, 0)
        self.hops = check_count("hops", hops, 0)
        self.short = check_count("short", short)
        self.projections = check_count("projections", projections)
        self.hop = check_count("hop", hop)

    def search(self, model: Model, x: Tensor, criterion: Any) -> Tensor:
        goal = class_to_reach(criterion)
        return self.find(model, x, class_to_leave(criterion)) if goal is None else self._find(model, x, None, goal)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        return self._find(model, x, labels, None)

    def _find(self, model: Model, x: Tensor, labels: Tensor | None, goal: Tensor | None) -> Tensor:
        count = max(self.rivals + _MORE, self.likely)
        done, classes, linear = _linearized(model, x, labels, goal, self.norm, count)
        runs = _Runs(model, x, labels, self.norm, done)
        near = linear.argsort(dim=1, stable=True)[:, : self.rivals]
        for column in near.unbind(1):
            close = _column(linear, column) < self.reach * runs.length
            runs.run(mean_plane, close, _column(classes, column), steps=self.short)
        away = starts(x, model.bounds)
        for number, start in zip(range(self.starts + _LAST_STARTS), away, strict=False):
            where = runs.length > 0 if number < self.starts else runs.length.isinf()
            for rival in classes[:, : self.likely].unbind(1):
                runs.run(fab, where, rival, start=start, steps=self.projections)
        found = runs.length.isfinite()
        for number in range(self.hops):
            start = around(x, runs.points, self.norm, number).clamp(*model.bounds)
            runs.run(mean_plane, found, runs.rival, start=start, steps=self.hop)
        runs.run(fab, found, runs.rival, start=runs.points, steps=_POLISH, retreat=_POLISH_RETREAT)
        return runs.points


class _Runs:
    """The nearest adversarials of the runs so far: ``length`` (N,), inf before, ``points``, and the ``rival`` each.

    Samples that were ``done`` (N,) before have length 0 and never take part.
    """

    def __init__(self, model: Model, x: Tensor, labels: Tensor | None, norm: float, done: Tensor) -> None:
        self.model, self.x, self.labels, self.norm = model, x, labels, norm
        self.length = torch.where(done, 0.0, torch.inf).to(x.dtype)
        self.points, self.rival = x.clone(), torch.zeros(len(x), dtype=torch.long, device=x.device)

    def run(
        self,
        descent: Callable[..., tuple[Tensor, Tensor]],
        where: Tensor,
        rival: Tensor,
        *,
        start: Tensor | None = None,
        **options: Any,
    ) -> None:
        """Runs the samples ``where`` (N,) to ``rival`` (N,)."""
        index = (where & (self.length > 0)).nonzero().flatten()
        if not len(index):
            return
        model, x = subset(self.model, index), self.x[index]
        labels = None if self.labels is None else self.labels[index]
        if start is not None:
            start = start[index]
            options["start"] = model.allowed(start) if isinstance(model, ScoresModel) else start
        length, points = descent(model, x, labels, rival[index], norm=self.norm, **options)
        self.rival[index] = torch.where(length < self.length[index], rival[index], self.rival[index])
        self.length[index], self.points[index] = nearer(length, points, self.length[index], self.points[index])


def _linearized(
    model: Model, x: Tensor, labels: Tensor | None, goal: Tensor | None, norm: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples are adversarial, the ``count`` likeliest rivals (N, R), the linearized distances to them.

    With ``goal`` it is the only rival, and the class to leave is the best other one.
    """
    graph = ScoreGraph(score_function(model), (x,))
    scores = graph.scores.detach()
    if goal is not None:
        labels, classes = scores.scatter(1, goal.unsqueeze(1), -torch.inf).argmax(1), goal.unsqueeze(1)
        done = is_adversarial(scores, None, goal)
    else:
        assert labels is not None
        others = scores.scatter(1, labels.unsqueeze(1), -torch.inf)
        classes = others.topk(min(count, scores.shape[1] - 1), 1).indices
        done = is_adversarial(scores, labels, None)
    own = graph.one_hot(labels)
    lengths = [per_sample_norm(graph.gradient(graph.one_hot(rival) - own), dual(norm)) for rival in classes.unbind(1)]
    gaps = scores.gather(1, labels.unsqueeze(1)) - scores.gather(1, classes)
    size = torch.stack(lengths, 1).to(x.dtype)
    # Where there is no gradient, or none that is finite, a boundary may be anywhere: it comes last, but it comes.
    far = gaps.to(x.dtype) / size.clamp(min=torch.finfo(x.dtype).tiny)
    return done, classes, torch.where(size.isfinite(), far, torch.finfo(x.dtype).max)


def _column(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(1, column.unsqueeze(1)).squeeze(1)
