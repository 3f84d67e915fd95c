"""An attack that asks for classes only, for models whose gradients say nothing."""

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_alignment._core._foolbox import score_function, subset
from captum_alignment._core._foolbox_names import HopSkipJumpAttack, Misclassification, Model, TransformBoundsWrapper
from captum_alignment._core._inputs import check_count, per_sample
from captum_alignment._core._random import seeded
from captum_alignment.robust._attack import UntargetedAttack
from captum_alignment.robust._starts import box, starts

#: Images of noise among which an adversarial to start from is looked for.
_NOISES = 20


class DecisionSearch(UntargetedAttack):
    """Foolbox's HopSkipJump (Chen et al. 2020) inside any bounds, for the samples that have a point to start from.

    It starts from the first of these that has another class: the negative of the image, blank images, the starts of
    `RivalSearch`, noise. Foolbox's own needs bounds of (0, 1) and fails for a whole batch if one sample has no start;
    here such a sample comes back unchanged. Without gradients nothing is near the optimum: each step costs some hundred
    forward passes per sample.

    Args:
        norm: 2 or inf.
        steps: iterations of HopSkipJump.

    Raises:
        ValueError: another norm, no steps; at run time a criterion other than `Misclassification`.

    >>> import foolbox
    >>> model = foolbox.PyTorchModel(torch.nn.Linear(4, 3).eval(), bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
    >>> _, adversarials, success = DecisionSearch()(model, x, y, epsilons=None)
    >>> adversarials.shape, success.shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(self, *, norm: float = 2, steps: int = 30) -> None:
        super().__init__(norm=norm)
        self.steps = check_count("steps", steps)

    def find(self, model: Model, x: Tensor, labels: Tensor) -> Tensor:
        ask, (low, high) = score_function(model), box(x, model.bounds)
        points, open_ = x.clone(), torch.ones_like(labels, dtype=torch.bool)
        with torch.no_grad():
            for candidate in _candidates(x, low, high, model.bounds):
                here = open_ & (ask(candidate).argmax(1) != labels)
                points, open_ = torch.where(per_sample(here, x), candidate, points), open_ & ~here
            away = ask(x).argmax(1) == labels
        index = (away & ~open_).nonzero().flatten()
        points = torch.where(per_sample(away, x), points, x)
        if len(index):
            points[index] = self._jump(subset(model, index), x[index], labels[index], points[index], low, high)
        return points

    def _jump(self, model: Model, x: Tensor, labels: Tensor, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
        # Per-sample boxes of infinite bounds are joined: HopSkipJump clips all samples to (0, 1).
        bottom, top = float(low.min()), float(high.max())
        inner = TransformBoundsWrapper(_Within(model, (bottom, top)), (0, 1))
        attack = HopSkipJumpAttack(steps=self.steps, constraint="l2" if self.norm == 2 else "linf")
        span = top - bottom
        with seeded(0, x.device):
            found = attack.run(
                inner, (x - bottom) / span, Misclassification(labels), starting_points=(points - bottom) / span
            )
        return found * span + bottom


class _Within(Model):
    """``model`` with finite bounds."""

    def __init__(self, model: Model, bounds: tuple[float, float]) -> None:
        self._model, self._bounds = model, bounds

    @property
    def bounds(self) -> tuple[float, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._bounds

    def __call__(self, inputs):
        return self._model(inputs)


def _candidates(x: Tensor, low: Tensor, high: Tensor, bounds: tuple[float, float]) -> Iterator[Tensor]:
    yield (low + high - x).clamp(*bounds)
    for level in (low, high, (low + high) / 2):
        yield level.expand_as(x)
    for _, start in zip(range(_NOISES), starts(x, bounds), strict=False):
        yield start
    generator = torch.Generator().manual_seed(1)
    for _ in range(_NOISES):
        noise = torch.rand(x.shape[1:], generator=generator, dtype=torch.float64).to(x)
        yield (low + (high - low) * noise).expand_as(x)
