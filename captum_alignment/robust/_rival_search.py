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
from captum_alignment.robust._mean_plane import mean_plane

#: So many more rivals are linearized than get a short run: the nearest boundary need not be a likely class's.
_MORE = 2
#: A sample is easy if short runs end near the linearized distance: at most so many times farther, or nearer.
_FARTHER, _NEARER = 1.3, 1.5
#: And if no other run comes nearer than they did by this factor: of so many steps of DDN, or a long one.
_GAIN, _CHECK = 1.1, 5
#: A rival whose short run ends within this factor of the shortest contends.
_CONTENDS = 1.05
#: The nearest point of a sample that is not easy is polished by so many projections, with little retreat between them.
_POLISH, _POLISH_RETREAT = 4, 0.05


class RivalSearch(UntargetedAttack):
    """Minimum-norm attack that combines descents toward one rival at a time, sample by sample.

    The rivals with the nearest linearized boundaries get short runs along the mean of the boundaries' planes. On most
    natural networks they end near the linearized distance, and a few steps of DDN (Rony et al. 2019, on the margin) do
    not come much nearer: such a sample is easy, and the rivals whose runs ended nearest may get a long one. On other
    samples, most of them on adversarially trained and certified networks, the most likely rivals get a long run of
    `FAB` each, and the nearest so far one of DDN, which finds the way where projections do not, above all in l_inf; in
    l_2 only if they ended far from the linearized boundary.

    Args:
        norm: 2 or inf.
        rivals: at most how many rivals get a short run.
        reach: a rival gets one only if its linearized boundary is nearer than the nearest adversarial times this.
        contenders: at most how many rivals of an easy sample get a long run; 0 for none.
        likely: at most how many rivals of another sample get a run of `FAB`.
        short, long, projections: steps of a short run, of a long run, and of `FAB` or DDN.

    Raises:
        ValueError: another norm, numbers of runs or steps that are not positive, a reach below 1; at run time a
            criterion other than `Misclassification`.

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = RivalSearch()(model, x, y, epsilons=None)
    >>> adversarials.shape, success.shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        *,
        norm: float = 2,
        rivals: int = 4,
        reach: float = 1.15,
        contenders: int = 0,
        likely: int = 2,
        short: int = 12,
        long: int = 36,
        projections: int = 24,
    ) -> None:
        super().__init__(norm=norm)
        self.rivals = check_count("rivals", rivals)
        if isinstance(reach, bool) or not isinstance(reach, int | float) or not reach >= 1:
            raise ValueError(f"reach: got {reach!r}, expected a number of at least 1")
        self.reach = reach
        self.contenders = check_count("contenders", contenders, 0)
        self.likely = check_count("likely", likely)
        self.short = check_count("short", short)
        self.long = check_count("long", long)
        self.projections = check_count("projections", projections)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        classes, linear = _linearized(model, x, labels, self.norm, max(self.rivals + _MORE, self.likely))
        runs = _Runs(model, x, labels, self.norm)
        near, nearest = linear.argsort(dim=1, stable=True)[:, : self.rivals], linear.amin(1)
        short, easy = torch.full_like(linear, torch.inf), nearest > 0
        for column in near.unbind(1):
            close = _column(linear, column) < self.reach * runs.length
            lengths = runs.run(mean_plane, easy & close, _column(classes, column), steps=self.short)
            short.scatter_(1, column.unsqueeze(1), lengths.unsqueeze(1))
            easy = runs.agree(nearest)
        shortest, order = short.sort(dim=1, stable=True)
        first = torch.where(runs.length.isfinite(), runs.rival, _column(classes, near[:, 0]))
        runs.run(ddn, easy, first, steps=_CHECK)
        for length, column in zip(shortest.unbind(1)[: self.contenders], order.unbind(1), strict=False):
            contends = easy & (length < _CONTENDS * shortest[:, 0])
            runs.run(mean_plane, contends, _column(classes, column), steps=self.long)
        easy &= shortest[:, 0] < _GAIN * runs.length
        for rival in classes[:, : self.likely].unbind(1):
            runs.run(fab, ~easy, rival, steps=self.projections)
        hard = ~easy & (runs.length > 0)
        # In l_2 what projections found near the linearized distance is seldom improved.
        doubtful = hard & ~runs.agree(nearest) if self.norm == 2 else hard
        runs.run(ddn, doubtful, first, steps=self.projections)
        found = hard & runs.length.isfinite()
        runs.run(fab, found, runs.rival, start=runs.points, steps=_POLISH, retreat=_POLISH_RETREAT)
        return runs.points


class _Runs:
    """The nearest adversarials of the runs so far: ``length`` (N,), inf before, ``points``, and the ``rival`` each."""

    def __init__(self, model: Model, x: Tensor, labels: Tensor, norm: float) -> None:
        self.model, self.x, self.labels, self.norm = model, x, labels, norm
        self.length = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
        self.points, self.rival = x.clone(), labels.clone()

    def agree(self, linear: Tensor) -> Tensor:
        """Whether the nearest adversarial lies near the linearized distance (N,)."""
        return (self.length < _FARTHER * linear) & (linear < _NEARER * self.length)

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
    return classes, gaps.to(x.dtype) / torch.stack(lengths, 1).to(x.dtype).clamp(min=torch.finfo(x.dtype).tiny)


def _column(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(1, column.unsqueeze(1)).squeeze(1)
