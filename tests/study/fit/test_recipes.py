"""What recipes are made of; `test_trainings` trains by them."""

import pytest
import torch
from torch import nn

from captum_alignment.study.fit._recipes import Lesson, Recipe, adversarial, cross_entropy, distilled, interpreted
from captum_alignment.study.load import load_data
from captum_alignment.training import AdversarialTraining, InterpretationRegularizer, RegularizationCallback


@pytest.fixture
def lesson(tmp_path):
    taught = []

    def teach(name: str, recipe: Recipe) -> nn.Module:
        taught.append((name, recipe))
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()

    samples = load_data("digits", train_size=12, eval_size=2).train
    return Lesson(samples, teach, tmp_path), taught


def test_a_plain_recipe_adds_nothing():
    recipe = Recipe()
    assert not recipe.callbacks
    assert recipe.maps is None
    scores, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    expected = nn.functional.cross_entropy(scores, labels)
    torch.testing.assert_close(recipe.loss(scores, torch.rand(5, 1), labels), expected)
    torch.testing.assert_close(cross_entropy(scores, torch.rand(5, 1), labels), expected)


def test_the_strength_of_adversarial_training_is_its_radius(lesson):
    (callback,) = adversarial("pgd-linf")(0.3, lesson[0]).callbacks
    assert isinstance(callback, AdversarialTraining)
    assert callback.epsilon == 0.3


def test_a_distilled_network_has_a_teacher_of_its_temperature(lesson):
    recipe = distilled(5.0, lesson[0])
    ((name, hard),) = lesson[1]
    assert name == "distillation-5"
    scores, labels = torch.randn(4, 10), torch.arange(4)
    own = nn.functional.cross_entropy(scores / 5, labels)
    torch.testing.assert_close(hard.loss(scores, torch.rand(4, 1), labels), own)
    assert recipe.loss(scores, lesson[0].samples.images[:4], labels) != own


@pytest.mark.parametrize("robust", [False, True])
def test_target_maps_are_those_of_a_plain_or_a_robust_teacher(robust, lesson):
    recipe = interpreted(robust=robust, method="gradient", threshold=0.0)(2.0, lesson[0])
    ((name, taught),) = lesson[1]
    assert name == ("robust" if robust else "plain")
    assert bool(taught.callbacks) is robust
    assert recipe.maps is not None
    assert recipe.maps.shape == lesson[0].samples.images.shape
    (callback,) = recipe.callbacks
    assert isinstance(callback, RegularizationCallback)
    regularizer = callback.regularizer
    assert isinstance(regularizer, InterpretationRegularizer)
    assert (regularizer.direction, regularizer.magnitude) == (2.0, 0.1)
