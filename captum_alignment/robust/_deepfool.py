"""DeepFool with one forward pass for all rivals of a step."""

from typing import Any

import torch
from torch import Tensor

from captum_alignment._core._foolbox import class_to_leave, score_function, subset
from captum_alignment._core._foolbox_names import L2DeepFoolAttack, LinfDeepFoolAttack, Misclassification, Model
from captum_alignment._core._inputs import check_count, dual, per_sample
from captum_alignment._core._questions import together
from captum_alignment.robust._attack import Rounding, UntargetedAttack
from captum_alignment.robust._nearest_boundary import NearestBoundary, Samples, Slopes

#: Features of the samples that go together on a CPU. Larger batches of large images are no faster per sample there,
#: and a sample that needs no further gradient takes part in the passes of those that do.
_GROUP_FEATURES = 2**17
#: With fewer features passes mostly cost by the call, not by the row: all that a step still asks then shares one.
_SMALL_FEATURES = 1_000
#: Rows that such a pass may take, also where the batch has fewer and nobody limits it.
_ROWS = 128


class DeepFool(UntargetedAttack):
    """Steps to the nearest linearized decision boundary until the class changes.

    DeepFool (Moosavi-Dezfooli et al. 2016, Algorithm 2). Inputs, adversarials and distances are in the units of the
    model's bounds. The iterates are those of Foolbox's `L2DeepFoolAttack` and `LinfDeepFoolAttack` with the same
    arguments; the cost is not: one forward pass serves all rivals of a step (and others, over the samples that need
    more gradients, where they save backward passes), finished samples leave the batch, and a sample takes no backward
    pass for rivals that cannot be nearest. No pass takes more rows than the batch, or, where inputs have fewer
    than 1,000 features and nobody limits the batch, than 128.

    A rival is skipped where it would be nearest only with a gradient more than twice as long as all that the sample has
    seen; or, while the gradient of the last step's rival comes back unchanged (the sample is still on one linear piece
    of the network), longer than its own there. In the first step, which has seen least, one backward pass over a
    mixture of all skipped rivals looks for a longer gradient; where there may be one, and for inputs of fewer than
    10,000 features, all are measured. None of this is a bound: a network whose gradients grow faster, or hide each
    other in the mixture, may lead elsewhere. A sample whose gradient is not finite stays where it is. In half precision
    scores tie, and the steps of some samples go to and fro between two values: Foolbox's own attack is tried on those.

    Args:
        norm: 2 or inf.
        steps: at most that many steps.
        candidates: the most likely classes of the input that are considered, its own included; None considers all.
        overshoot: share by which every step goes beyond the boundary.

    Raises:
        ValueError: another norm, no steps, fewer than 2 candidates; at run time a criterion other than
            `Misclassification`.

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = DeepFool()(model, x, y, epsilons=None)
    >>> adversarials.shape, success.shape
    (torch.Size([5, 4]), torch.Size([5]))
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
        x = x.clone()
        group = max(1, _GROUP_FEATURES // x[0].numel()) if x.device.type == "cpu" else len(x)
        with together():
            for index in torch.arange(len(x), device=x.device).split(group):
                self._move(model, x, labels, index)
        return x

    def rescue(self, model: Model, x: Tensor, found: Tensor, criterion: Any, dtype: torch.dtype) -> Tensor:
        labels = class_to_leave(criterion)
        with torch.no_grad():
            index = (score_function(model)(found).argmax(1) == labels).nonzero().flatten()
        if not len(index):
            return found
        part = model.inner if isinstance(model, Rounding) else subset(model, index)
        peer = L2DeepFoolAttack if self.norm == 2 else LinfDeepFoolAttack
        options = {"steps": self.steps, "candidates": self.candidates, "overshoot": self.overshoot, "loss": "logits"}
        points = peer(**options).run(part, x[index].to(dtype), Misclassification(labels[index])).to(found)
        finite = points.flatten(1).isfinite().all(1)
        found[index[finite]] = points[finite]
        return found

    def _move(self, model: Model, x: Tensor, labels: Tensor, index: Tensor) -> None:
        """Moves the samples ``index`` of ``x`` in place."""
        most = 1
        if x[0].numel() < _SMALL_FEATURES:
            most = max(len(index), _ROWS if getattr(model, "roomy", True) else 1)
        samples: Samples | None = None
        for _ in range(self.steps):
            slopes, first = Slopes(model, x, index), samples is None
            samples = samples or self._begin(x[index], labels[index], index, slopes.scores)
            # Where a gradient is not finite, a sample stays for good.
            going = ((slopes.scores.argmax(1) == labels[index]) & samples.reach.isfinite()).nonzero().flatten()
            if len(going) < len(index):
                samples = samples.take(going)
                slopes.keep(going)
            if not len(going):
                break
            samples, distance = NearestBoundary(slopes, samples, dual(self.norm), together=most, first=first).find()
            del slopes  # and its graph, before there is another
            samples = self._step(samples, distance)
            samples = samples._replace(reach=samples.reach + 0 * distance)  # not finite where the distance is not
            index = samples.place
            ahead = (samples.start + (1 + self.overshoot) * samples.total).clamp(*model.bounds)
            x[index] = torch.where(per_sample(samples.reach.isfinite(), x), ahead, x[index])

    def _begin(self, x: Tensor, labels: Tensor, index: Tensor, scores: Tensor) -> Samples:
        own_first = scores.scatter(1, labels.unsqueeze(1), torch.inf)  # also where it shares the highest score
        classes = own_first.sort(dim=1, descending=True, stable=True).indices[:, : self.candidates]
        zeros, unknown = torch.zeros_like(x), x.new_full((len(x), classes.shape[1] - 1), torch.inf)
        return Samples(index, x, zeros, classes, torch.zeros_like(index), zeros, unknown, x.new_zeros(len(x)))

    def _step(self, samples: Samples, distance: Tensor) -> Samples:
        """The samples after a step to the nearest linearized boundary, 1e-4 further as in Foolbox."""
        direction = samples.direction
        if self.norm == 2:
            length = samples.lengths.gather(1, samples.nearest.unsqueeze(1)).squeeze(1)
            step = per_sample((distance + 1e-4) / (length + 1e-8), direction) * direction
        else:
            step = per_sample(distance + 1e-4, direction) * direction.sign()
        return samples._replace(total=samples.total + step)
