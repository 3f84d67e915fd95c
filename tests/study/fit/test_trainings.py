"""Every method trains as its literal loop does, or as its own test in tests/training says; here: that it is wired."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from captum_alignment.study.fit import TRAININGS, Recipe, TrainingConfig, fit, make_recipe
from captum_alignment.study.load import Split, load_data
from captum_alignment.training import (
    TRADES,
    AdversarialTraining,
    EdgeAlignment,
    JacobianRegularizer,
    LargeMargin,
    LinearRegions,
    LocalLipschitz,
    RegularizationCallback,
    SaliencyTargets,
)

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=1)


@pytest.fixture(scope="module")
def samples():
    return load_data("digits", train_size=40, eval_size=2).train


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def train(recipe: Recipe, samples) -> nn.Module:
    return fit(network, recipe, samples, CONFIG, seed=0, device=CPU)


def weights(net: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.fixture
def taught(samples):
    """A teacher for every name, and the names that were asked for."""
    names = []

    def teach(name: str, recipe: Recipe) -> nn.Module:
        names.append(name)
        return train(recipe, samples)

    return teach, names


@pytest.mark.parametrize("method", TRAININGS)
def test_every_method_trains_otherwise_than_plainly_and_the_same_each_time(method, samples, taught, tmp_path):
    teach, names = taught
    strength = TRAININGS[method].small[-1]
    plain = weights(train(make_recipe(method, 0.0, samples, teach, tmp_path), samples))
    assert names == []
    found = [weights(train(make_recipe(method, strength, samples, teach, tmp_path), samples)) for _ in range(2)]
    assert torch.equal(plain, weights(train(Recipe(), samples)))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], plain, atol=1e-4)


def test_only_distillation_and_interpretation_need_a_teacher(samples, taught, tmp_path):
    teach, names = taught
    for method, about in TRAININGS.items():
        make_recipe(method, about.small[1], samples, teach, tmp_path)
    assert names == ["plain", "robust", "robust", "robust", "distillation-2"]


def test_interpretation_targets_are_the_teachers_maps_and_permuted_ones_are_not(samples, taught, tmp_path):
    teach, _ = taught
    robust, smooth, permuted = (
        make_recipe(f"interpretation-{kind}", 1.0, samples, teach, tmp_path).maps
        for kind in ("robust", "robust-smooth", "permuted")
    )
    assert robust is not None
    assert smooth is not None
    assert permuted is not None
    assert smooth.shape == samples.images.shape
    torch.testing.assert_close(smooth.flatten(1).sort().values, permuted.flatten(1).sort().values)
    both = nn.functional.cosine_similarity(smooth.flatten(1), robust.flatten(1)).median()
    control = nn.functional.cosine_similarity(permuted.flatten(1), robust.flatten(1)).median()
    assert both > 0.3 > control.abs() + 0.1
    stored = SaliencyTargets(samples, next(tmp_path.glob("*smoothgrad*")), threshold=1.0)
    torch.testing.assert_close(smooth[3], stored[3][2])


@pytest.mark.parametrize("attack", ["pgd-l2", "pgd-linf"])
def test_adversarial_training_has_the_radius_as_its_strength(attack, samples, taught, tmp_path):
    (callback,) = make_recipe(attack, 0.4, samples, taught[0], tmp_path).callbacks
    assert isinstance(callback, AdversarialTraining)
    assert (callback.epsilon, callback.options["attack"], callback.options["steps"]) == (0.4, attack, 7)


@pytest.mark.parametrize(
    ("method", "kind", "settings"),
    [
        ("lipschitz", LocalLipschitz, {"weight": 0.4, "norm": 2, "squared": True}),
        ("l1", LocalLipschitz, {"weight": 0.4, "norm": float("inf"), "squared": False}),
        ("jacobian", JacobianRegularizer, {"weight": 0.4}),
        ("edges", EdgeAlignment, {"weight": 0.4}),
        ("large-margin", LargeMargin, {"weight": 1.0, "margin": 0.4}),
        ("linear-regions", LinearRegions, {"weight": 0.3, "region": 0.4, "margin": 0.4, "norm": 2}),
        ("trades", TRADES, {"weight": 3.0, "epsilon": 0.4, "norm": 2, "steps": 7}),
    ],
)
def test_a_regularizer_gets_the_strength_as_its_row_says(method, kind, settings, samples, taught, tmp_path):
    (callback,) = make_recipe(method, 0.4, samples, taught[0], tmp_path).callbacks
    assert isinstance(callback, RegularizationCallback)
    assert type(callback.regularizer) is kind
    assert {name: getattr(callback.regularizer, name) for name in settings} == settings


def test_perceptual_alignment_points_to_the_class_means(samples, taught, tmp_path):
    (callback,) = make_recipe("perceptual", 0.4, samples, taught[0], tmp_path).callbacks
    assert isinstance(callback, RegularizationCallback)
    means: Any = vars(callback.regularizer)["representatives"]
    assert means.shape == (10, 1, 8, 8)
    torch.testing.assert_close(means[3], samples.images[samples.labels == 3].mean(0))
    rows = samples.labels != 4
    without = Split(samples.images[rows], samples.labels[rows], samples.index[rows])
    with pytest.raises(ValueError, match="no training image of class 4"):
        make_recipe("perceptual", 0.4, without, taught[0], tmp_path)


def test_augmentation_moves_images_and_is_refused_beside_target_maps(samples):
    def weights_after(recipe):
        return weights(fit(network, recipe, samples, TrainingConfig(epochs=1, augment=True), seed=0, device=CPU))

    assert not torch.equal(weights_after(Recipe()), weights(train(Recipe(), samples)))
    with pytest.raises(ValueError, match="augment: got True for a training with target maps"):
        weights_after(Recipe(maps=samples.images))


def test_a_distilled_student_learns_the_teachers_soft_labels(samples, tmp_path):
    fixed = train(Recipe(), samples)
    recipe = make_recipe("distillation", 5.0, samples, lambda _name, _recipe: fixed, tmp_path)
    images, scores = samples.images[:7], torch.randn(7, 10)
    expected = -(fixed(images) / 5).softmax(1) * (scores / 5).log_softmax(1)
    torch.testing.assert_close(recipe.loss(scores, images, samples.labels[:7]), expected.sum(1).mean())


def test_the_radius_of_the_robust_teacher_is_the_papers_on_mnist(taught, tmp_path):
    recipes = {}

    def teach(name: str, recipe: Recipe) -> nn.Module:
        recipes[name] = recipe
        raise StopIteration

    class Mnist:
        images, labels = torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long)

    with pytest.raises(StopIteration):
        make_recipe("interpretation-robust", 1.0, Mnist(), teach, Path(tmp_path))  # pyright: ignore[reportArgumentType]
    assert recipes["robust"].callbacks[0].epsilon == pytest.approx(1.5)
