"""How each method trains: its callbacks, its targets, its loss."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from captum_alignment.study.fit._fit import Recipe
from captum_alignment.study.load import Split
from captum_alignment.training import (
    AdversarialTraining,
    Distillation,
    InterpretationRegularizer,
    JacobianRegularizer,
    LargeMargin,
    LipschitzRegularization,
    RegularizationCallback,
    SaliencyTargets,
    distillation_loss,
    saliency_targets,
)

#: A network trained with a recipe on the same data by the same seed: ``teach("pgd-l2", Recipe(...))``.
Teach = Callable[[str, Recipe], nn.Module]

_PGD_STEPS = 7
#: Weight of the hinge of the large margin; its strength is the margin.
_MARGIN_WEIGHT = 1.0
_MAGNITUDE = 0.05
#: Half the diagonal of the unit cube, over this, is the radius at which the robust teacher is trained: 1.5 on MNIST.
_TEACHER_RADIUS = 28 / 3


class _Targets(NamedTuple):
    """Where the target maps come from (Noack et al. 2019, Section 4)."""

    robust: bool
    method: Any
    threshold: float
    permuted: float = 0.0


_TARGETS = {
    "interpretation": _Targets(False, "smoothgrad", 1.25),
    "interpretation-robust": _Targets(True, "gradient", 1.0),
    "interpretation-robust-smooth": _Targets(True, "smoothgrad", 1.0),
    "interpretation-permuted": _Targets(True, "smoothgrad", 1.0, permuted=1.0),
}


def make_recipe(method: str, strength: float, samples: Split, teach: Teach, folder: Path) -> Recipe:
    """What ``method`` adds to plain training at ``strength``; nothing at strength 0.

    Args:
        teach: trains the other network that distillation and interpretation targets need.
        folder: where target maps are kept.
    """
    if strength == 0:
        return Recipe()
    if method in _TARGETS:
        return _interpretation(_TARGETS[method], strength, samples, teach, folder)
    return _RECIPES[method](strength, teach)


def _distillation(temperature: float, teach: Teach) -> Recipe:
    def hard(scores: Tensor, _images: Tensor, labels: Tensor) -> Tensor:
        return distillation_loss(scores, labels, temperature=temperature).mean()

    teacher = teach(f"distillation-{temperature:g}", Recipe(loss=hard))
    soft = Distillation(teacher, temperature=temperature)
    return Recipe(loss=lambda scores, images, labels: soft(scores, images))  # noqa: ARG005 - the form of a loss


def _adversarial(attack: Any) -> Callable[[float, Teach], Recipe]:
    return lambda epsilon, teach: Recipe([AdversarialTraining(epsilon, attack=attack, steps=_PGD_STEPS)])  # noqa: ARG005


_RECIPES: dict[str, Callable[[float, Teach], Recipe]] = {
    "lipschitz": lambda weight, teach: Recipe([LipschitzRegularization(weight)]),  # noqa: ARG005
    "jacobian": lambda weight, teach: Recipe([RegularizationCallback(JacobianRegularizer(weight))]),  # noqa: ARG005
    "large-margin": lambda margin, teach: Recipe(  # noqa: ARG005
        [RegularizationCallback(LargeMargin(_MARGIN_WEIGHT, margin=margin, candidates=3))]
    ),
    "pgd-l2": _adversarial("pgd-l2"),
    "pgd-linf": _adversarial("pgd-linf"),
    "distillation": _distillation,
}


def _interpretation(targets: _Targets, weight: float, samples: Split, teach: Teach, folder: Path) -> Recipe:
    if targets.robust:
        radius = samples.images[0].numel() ** 0.5 / 2 / _TEACHER_RADIUS
        teacher = teach("robust", Recipe([AdversarialTraining(radius, steps=_PGD_STEPS)]))
    else:
        teacher = teach("plain", Recipe())
    pairs = TensorDataset(samples.images, samples.labels)
    store = folder / f"{targets.method}-of-{'robust' if targets.robust else 'plain'}"
    saliency_targets(teacher, pairs, store, method=targets.method)
    stored = SaliencyTargets(pairs, store, threshold=targets.threshold, permuted=targets.permuted)
    maps = torch.stack([stored[index][2] for index in range(len(pairs))])
    regularizer = InterpretationRegularizer(weight, _MAGNITUDE * weight)
    return Recipe([RegularizationCallback(regularizer)], maps)
