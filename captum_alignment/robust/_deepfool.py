"""DeepFool with one forward pass per step."""

import torch
from foolbox.models import Model
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment._core._inputs import check_count, dual, per_sample, per_sample_norm
from captum_alignment.robust._attack import UntargetedAttack

#: A rival is skipped in a step only if its gradient would have to be this much longer than any seen for the sample.
_REACH = 2.0


class DeepFool(UntargetedAttack):
    """Steps to the nearest linearized decision boundary until the class changes (Moosavi-Dezfooli et al. 2016).

    The iterates are those of Foolbox's `L2DeepFoolAttack` and `LinfDeepFoolAttack` with the same arguments; the cost is
    not: one forward pass per step serves all rivals, finished samples leave the batch, and rivals are tried in order of
    their gap only as long as one of them can be nearest, given that no gradient is twice as long as all seen before.

    Args:
        norm: 2 or inf.
        steps: at most that many steps.
        candidates: the most likely classes of the input that are considered, its own included; None considers all.
        overshoot: share by which every step goes beyond the boundary.

    Raises:
        ValueError: another norm, no steps, fewer than 2 candidates; at run time a criterion other than
            `Misclassification`.
    """

    def __init__(
        self, *, norm: float = 2, steps: int = 50, candidates: int | None = 10, overshoot: float = 0.02
    ) -> None:
        super().__init__(norm=norm)
        self.steps = check_count("steps", steps)
        if candidates is not None:
            check_count("candidates", candidates, least=2)
        self.candidates = candidates
        self.overshoot = overshoot

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        start, total = x, torch.zeros_like(x)
        x = start.clone()
        active = torch.arange(len(x), device=x.device)
        reach = torch.zeros(len(x), device=x.device, dtype=x.dtype)  # the longest gradient seen
        classes: Tensor | None = None
        for _ in range(self.steps):
            graph = _graph(model, x, active)
            if classes is None:
                classes = graph.scores.detach().argsort(1, descending=True)[:, : self.candidates]
            going = graph.scores.argmax(1) == labels[active]
            if not going.all():
                active = active[going]
                if not len(active):
                    break
                graph = _graph(model, x, active)  # cheaper than to drag finished samples through the backward passes
            step, reach[active] = self._step(graph, classes[active], reach[active])
            total[active] += step
            x[active] = (start[active] + (1 + self.overshoot) * total[active]).clamp(*model.bounds)
        return x

    def _step(self, graph: ScoreGraph, classes: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """The step (N, ...) to the nearest linearized boundary, and the longest gradient seen (N,)."""
        own, rivals = classes[:, :1], classes[:, 1:]
        scores = graph.scores.detach()
        gaps, order = (scores.gather(1, own) - scores.gather(1, rivals)).abs().sort(dim=1, stable=True)
        rivals = rivals.gather(1, order)
        weights = graph.one_hot(own.squeeze(1))
        best = torch.full_like(reach, torch.inf)
        size, direction = torch.zeros_like(reach), torch.zeros_like(graph.inputs[0])
        for k in range(rivals.shape[1]):
            if k and not (gaps[:, k] < best * _REACH * reach).any():
                break  # gaps are sorted: no later rival of any sample can be nearer either
            (gradient,) = graph.gradient(graph.one_hot(rivals[:, k]) - weights)
            length = per_sample_norm((gradient,), dual(self.norm)).to(reach.dtype)
            reach = torch.maximum(reach, length)
            distance = gaps[:, k] / (length + 1e-8)
            nearer = distance < best
            best, size = torch.where(nearer, distance, best), torch.where(nearer, length, size)
            direction = torch.where(per_sample(nearer, gradient), gradient, direction)
        # As in Foolbox, 1e-4 further than the boundary.
        if self.norm == 2:
            return per_sample((best + 1e-4) / (size + 1e-8), direction) * direction, reach
        return per_sample(best + 1e-4, direction) * direction.sign(), reach


def _graph(model: Model, x: Tensor, index: Tensor) -> ScoreGraph:
    return ScoreGraph(score_function(subset(model, index)), (x[index],))
