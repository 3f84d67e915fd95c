"""What a training adds to plain training: callbacks that change the step, target maps, another loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from captum_alignment._optional import WhenUsed

# The command line lists trainings, which hold recipes, before anything that is slow is needed.
if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback
    from torch import Tensor, nn

    from captum_alignment import training
    from captum_alignment.study.load import Split
else:
    torch, training = WhenUsed("torch"), WhenUsed("captum_alignment.training")

#: The loss of a batch, from its scores (N, K), images and labels.
Loss: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"

PGD_STEPS = 7
_MAGNITUDE = 0.05
#: Half the diagonal of the unit cube, over this, is the radius at which the robust teacher is trained: 1.5 on MNIST.
_TEACHER_RADIUS = 28 / 3


def cross_entropy(scores: Tensor, _images: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(scores, labels)


@dataclass(frozen=True)
class Recipe:
    """What distinguishes a training from a plain one.

    Attributes:
        callbacks: that change the step. maps: a target map for each training image. loss: of a batch.
    """

    callbacks: Sequence[Callback] = ()
    maps: Tensor | None = None
    loss: Loss = cross_entropy


#: A network trained with a recipe on the same data by the same seed: ``teach("pgd-l2", Recipe(...))``.
Teach: TypeAlias = "Callable[[str, Recipe], nn.Module]"


@dataclass(frozen=True)
class Lesson:
    """What a recipe may need: the training samples, other networks, and the folder where target maps are kept."""

    samples: Split
    teach: Teach
    folder: Path


#: What a strength and a lesson make.
MakeRecipe = Callable[[float, Lesson], Recipe]


def regularized(make: Callable[[float, Split], Any]) -> MakeRecipe:
    """The regularizer that ``make`` returns for a strength and the training samples."""
    return lambda strength, lesson: Recipe([training.RegularizationCallback(make(strength, lesson.samples))])


def adversarial(attack: Any) -> MakeRecipe:
    """Training on adversarial examples; the strength is their radius."""
    return lambda radius, _: Recipe([training.AdversarialTraining(radius, attack=attack, steps=PGD_STEPS)])


def distilled(temperature: float, lesson: Lesson) -> Recipe:
    """Training on the soft labels of a network that was trained at the same temperature."""

    def hard(scores: Tensor, _images: Tensor, labels: Tensor) -> Tensor:
        return training.distillation_loss(scores, labels, temperature=temperature).mean()

    teacher = lesson.teach(f"distillation-{temperature:g}", Recipe(loss=hard))
    soft = training.Distillation(teacher, temperature=temperature)
    return Recipe(loss=lambda scores, images, _: soft(scores, images))


def interpreted(*, robust: bool, method: Any, threshold: float, permuted: float = 0.0) -> MakeRecipe:
    """Training toward the saliency maps of another network, plain or robust (Noack et al. 2019, Section 4)."""

    def make(weight: float, lesson: Lesson) -> Recipe:
        samples = lesson.samples
        if robust:
            radius = samples.images[0].numel() ** 0.5 / 2 / _TEACHER_RADIUS
            teacher = lesson.teach("robust", Recipe([training.AdversarialTraining(radius, steps=PGD_STEPS)]))
        else:
            teacher = lesson.teach("plain", Recipe())
        pairs = torch.utils.data.TensorDataset(samples.images, samples.labels)
        store = lesson.folder / f"{method}-of-{'robust' if robust else 'plain'}"
        training.saliency_targets(teacher, pairs, store, method=method)
        stored = training.SaliencyTargets(pairs, store, threshold=threshold, permuted=permuted)
        maps = torch.stack([stored[index][2] for index in range(len(pairs))])
        regularizer = training.InterpretationRegularizer(weight, _MAGNITUDE * weight)
        return Recipe([training.RegularizationCallback(regularizer)], maps)

    return make
