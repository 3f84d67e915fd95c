"""A search for the nearest adversarial among the nearest rivals, which spends its steps where they pay."""

from collections.abc import Callable
from typing import Any

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import check_count, dual, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack, nearer
from captum_alignment.robust._ddn import ddn
from captum_alignment.robust._fab import fab

#: So many more rivals are linearized than get a short run: the nearest boundary need not be a likely class's.
_MORE = 2
#: A rival gets no run if its linearized boundary is farther than the nearest adversarial by this factor.
_FARTHER = 1.5
#: A sample is easy if the short runs end within this factor of the linearized distance, and the continuation comes
#: nearer than they did by less than the second factor.
_NEAR, _GAIN = 1.3, 1.1
#: The nearest point of all is polished by so many projections, with little retreat between them.
_POLISH, _POLISH_RETREAT = 4, 0.05


class RivalSearch(UntargetedAttack):
    """Minimum-norm attack that combines descents toward one rival at a time, sample by sample.

    The rivals with the nearest linearized boundaries get short runs of DDN (Rony et al. 2019, on the margin), and that
    of the nearest is continued. On most natural networks they agree with the linearization: such a sample is easy, and
    only rivals that could still come nearer get as long a run. Where the first short run ends far from the linearized
    boundary, as on adversarially trained and certified networks, the other rivals get none: `FAB` usually comes much
    nearer there, and the most likely rivals get a long run of it each, and of DDN one of them if the sample is still as
    far. A few more projections polish the nearest point.

    Args:
        norm: 2 or inf.
        rivals: at most how many rivals get a short run.
        contenders: at most how many rivals of an easy sample get more than that.
        likely: at most how many rivals of another sample get a long run.
        short, medium, long: steps of a short run, of its continuation, and of a long run.

    Raises:
        ValueError: another norm, numbers that are not positive; at run time a criterion other than
            `Misclassification`.
    """

    def __init__(
        self,
        *,
        norm: float = 2,
        rivals: int = 4,
        contenders: int = 1,
        likely: int = 2,
        short: int = 9,
        medium: int = 14,
        long: int = 25,
    ) -> None:
        super().__init__(norm=norm)
        self.rivals = check_count("rivals", rivals)
        self.contenders = check_count("contenders", contenders)
        self.likely = check_count("likely", likely)
        self.short = check_count("short", short)
        self.medium = check_count("medium", medium)
        self.long = check_count("long", long)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        classes, linear = _linearized(model, x, labels, self.norm, max(self.rivals + _MORE, self.likely))
        runs = _Runs(model, x, labels, self.norm)
        near, reach = linear.argsort(1)[:, : self.rivals], _NEAR * linear.amin(1)
        short, easy = torch.full_like(linear, torch.inf), reach > 0
        for column in near.unbind(1):
            close = _column(linear, column) < _FARTHER * runs.length
            lengths = runs.run(ddn, easy & close, _column(classes, column), steps=self.short)
            short.scatter_(1, column.unsqueeze(1), lengths.unsqueeze(1))
            easy = runs.length < reach
        first, winner = short.min(1)
        runs.run(ddn, easy, _column(classes, winner), start=runs.points, steps=self.medium)
        gain = first / runs.length
        easy &= gain < _GAIN
        for column in short.argsort(1)[:, 1 : self.contenders].unbind(1):
            hopeful = _column(short, column) < runs.length * gain.square()
            runs.run(ddn, easy & hopeful, _column(classes, column), steps=self.short + self.medium)
        for rival in classes[:, : self.likely].unbind(1):
            runs.run(fab, ~easy, rival, steps=self.long)
        runs.run(ddn, (runs.length > reach) & (runs.length > 0), _column(classes, winner), steps=self.long)
        open_ = runs.length.isfinite() & (runs.length > 0)
        runs.run(fab, open_, runs.rival, start=runs.points, steps=_POLISH, retreat=_POLISH_RETREAT)
        return runs.points


class _Runs:
    """The nearest adversarials of the runs so far: ``length`` (N,), inf before, ``points``, and the ``rival`` each."""

    def __init__(self, model: Model, x: Tensor, labels: Tensor, norm: float) -> None:
        self.model, self.x, self.labels, self.norm = model, x, labels, norm
        self.length = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
        self.points, self.rival = x.clone(), labels.clone()

    def run(
        self,
        descent: Callable[..., tuple[Tensor, Tensor]],
        where: Tensor,
        rival: Tensor,
        *,
        start: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Lengths (N,) of runs of the samples ``where`` to ``rival`` (N,); inf where there was none or no success."""
        lengths, index = torch.full_like(self.length, torch.inf), where.nonzero().flatten()
        if not len(index):
            return lengths
        if start is not None:
            options["start"] = start[index]
        part = subset(self.model, index), self.x[index], self.labels[index], rival[index]
        lengths[index], points = descent(*part, norm=self.norm, **options)
        self.rival = torch.where(lengths < self.length, rival, self.rival)
        self.length[index], self.points[index] = nearer(lengths[index], points, self.length[index], self.points[index])
        return lengths


def _linearized(model: Model, x: Tensor, labels: Tensor, norm: float, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` most likely other classes (N, R) and the linearized distances to them."""
    graph = ScoreGraph(score_function(model), (x,))
    scores = graph.scores.detach()
    others = scores.scatter(1, labels.unsqueeze(1), -torch.inf)
    top, classes = others.topk(min(count, scores.shape[1] - 1), 1)
    own = graph.one_hot(labels)
    lengths = [per_sample_norm(graph.gradient(graph.one_hot(rival) - own), dual(norm)) for rival in classes.unbind(1)]
    gaps = scores.gather(1, labels.unsqueeze(1)) - top
    return classes, gaps.to(x.dtype) / torch.stack(lengths, 1).to(x.dtype).clamp(min=1e-12)


def _column(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(1, column.unsqueeze(1)).squeeze(1)
