"""Foolbox attacks as Captum perturbations, beside what Foolbox finds and inside Captum's own classes."""

from typing import Any

import foolbox
import pytest
import torch
from captum.robust import AttackComparator, MinParamPerturbation, Perturbation
from foolbox.attacks import L2CarliniWagnerAttack, L2DeepFoolAttack, LinfPGD
from torch import nn

from captum_alignment.robust import DeepFool, FoolboxPerturbation
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs


def norms(a, b, order: float = 2):
    return torch.linalg.vector_norm((a - b).flatten(1), order, dim=1)


def test_is_what_foolbox_finds():
    net, x = mlp(dtype=torch.float32), torch.rand(6, 6)
    labels = net(x).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = L2DeepFoolAttack()
    _, expected, success = attack(model, x, labels, epsilons=None)
    found = FoolboxPerturbation(net, attack).perturb(x)
    torch.testing.assert_close(found, torch.where(success.unsqueeze(1), expected, x))
    assert success.any()
    assert (net(found).argmax(1) != labels)[success].all()
    assert isinstance(FoolboxPerturbation(net, attack), Perturbation)


def test_epsilon_limits_attacks_of_both_kinds():
    net, x = mlp(), torch.rand(40, 6, dtype=torch.float64)
    labels = net(x).argmax(1)
    free = FoolboxPerturbation(net, DeepFool())
    distance = norms(free.perturb(x), x)
    limit = float(distance[distance > 0].median())
    found = free.perturb(x, epsilon=limit)
    kept = (distance <= limit) & (distance > 0)
    assert 0 < kept.sum() < 40
    torch.testing.assert_close(found, torch.where(kept.unsqueeze(1), free.perturb(x), x))
    boxed = FoolboxPerturbation(net, LinfPGD(), epsilon=0.05)
    found = boxed.perturb(x)
    moved = norms(found, x, torch.inf)
    assert moved.max() <= 0.05 + 1e-6
    assert torch.equal(net(found).argmax(1) != labels, moved > 0)  # all that moved fools, and nothing else does
    assert 0 < (moved > 0).sum() < 40
    assert (norms(boxed.perturb(x, epsilon=0.3), x) > 0).sum() > (moved > 0).sum()
    assert torch.equal(boxed.perturb(x, epsilon=0), x)


def test_a_failed_attack_returns_the_clean_input():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.stack([2 + 0 * x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)

    x = torch.rand(3, 1, 4, 4)
    # Carlini-Wagner claims all-zero images here, and others are NaN.
    for attack in (L2CarliniWagnerAttack(binary_search_steps=1, steps=3), L2DeepFoolAttack()):
        assert torch.equal(FoolboxPerturbation(Constant(), attack).perturb(x), x)


def test_targets_are_the_class_to_leave():
    net, x = mlp(), torch.rand(9, 6, dtype=torch.float64)
    predicted, perturbation = net(x).argmax(1), FoolboxPerturbation(net, DeepFool())
    assert torch.equal(perturbation.perturb(x, predicted), perturbation.perturb(x))
    other = (predicted + 1) % 4
    for attack in (perturbation, FoolboxPerturbation(net, LinfPGD(), epsilon=0.1)):
        assert torch.equal(attack.perturb(x, other), x)  # already left
    with pytest.raises(ValueError, match="target: got class 4"):
        perturbation.perturb(x, 4)


def test_tuples_and_extra_arguments():
    net, x = TwoInputs(), two_inputs()
    extra = (torch.randn(7, dtype=torch.float64), 2.0)
    found = FoolboxPerturbation(net, LinfPGD(), epsilon=0.5).perturb(x, None, extra)
    assert [t.shape for t in found] == [t.shape for t in x]
    changed = net(*found, *extra).argmax(1) != net(*x, *extra).argmax(1)
    assert changed.any()
    assert isinstance(FoolboxPerturbation(mlp(), DeepFool()).perturb((torch.rand(2, 6).double(),)), tuple)


def test_inside_attack_comparator():
    net, x = cnn().float(), images(12, dtype=torch.float32)
    labels = net(x).argmax(1)

    def accuracy(model_out, target):
        return (model_out.argmax(1) == target).float()

    comparator = AttackComparator(net, accuracy)
    for epsilon in (0.01, 0.5):
        attack = FoolboxPerturbation(net, LinfPGD(), epsilon=epsilon)
        comparator.add_attack(attack, f"PGD {epsilon}", additional_attack_arg_names=["target"])
    comparator.add_attack(FoolboxPerturbation(net, DeepFool()), additional_attack_arg_names=["target"])
    before = snapshot(net)
    result: Any = comparator.evaluate(x, target=labels)
    assert_unchanged(net, before)
    means = {
        name: float((found["mean"] if isinstance(found, dict) else found).mean()) for name, found in result.items()
    }
    assert means["Original"] == 1
    assert means["Original"] >= means["PGD 0.01"] > means["PGD 0.5"]
    assert means["FoolboxPerturbation"] == 0


@pytest.mark.parametrize("mode", ["linear", "binary"])
def test_inside_min_param_perturbation(mode):
    net, x = cnn().float(), images(1, dtype=torch.float32)
    label = int(net(x).argmax())
    attack = FoolboxPerturbation(net, LinfPGD())
    search = MinParamPerturbation(net, attack, "epsilon", 0.0, 0.5, 0.01, mode=mode)
    found: Any
    epsilon: Any
    found, epsilon = search.evaluate(x, target=label, attack_kwargs={"target": label})
    assert 0 < epsilon < 0.5
    assert int(net(found).argmax()) != label
    assert norms(found, x, torch.inf) <= epsilon + 1e-6
    assert torch.equal(attack.perturb(x, label, epsilon=epsilon - 0.01), x)  # one step less does not do


def test_leaves_model_and_chance_alone():
    net, x = cnn(), images(3).requires_grad_()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, state = snapshot(net), torch.random.get_rng_state()
    perturbation = FoolboxPerturbation(net, LinfPGD(), epsilon=0.1)
    with torch.no_grad():
        first = perturbation.perturb(x)
    with torch.inference_mode():
        assert torch.equal(perturbation.perturb(x), first)
    assert not first.requires_grad
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_unchanged(net, before)
    assert x.grad is None


def test_bad_input_is_named():
    net, x = mlp(), torch.rand(2, 6, dtype=torch.float64)
    with pytest.raises(TypeError, match="attack: got str, expected a Foolbox attack"):
        FoolboxPerturbation(net, "pgd")  # pyright: ignore[reportArgumentType]
    for epsilon in (0, -1, float("inf"), float("nan"), True):
        with pytest.raises(ValueError, match="epsilon: got"):
            FoolboxPerturbation(net, LinfPGD(), epsilon=epsilon)
    with pytest.raises(ValueError, match="epsilon: got -1"):
        FoolboxPerturbation(net, LinfPGD()).perturb(x, epsilon=-1)
    with pytest.raises(ValueError, match="epsilon: got None, but LinfProjectedGradientDescentAttack needs one"):
        FoolboxPerturbation(net, LinfPGD()).perturb(x)
    with pytest.raises(ValueError, match=r"inputs range .* bounds"):
        FoolboxPerturbation(net, DeepFool()).perturb(x + 1)
    with pytest.raises(ValueError, match="bounds: got"):
        FoolboxPerturbation(net, DeepFool(), bounds=(1, 0))
    with pytest.raises(ValueError, match="is in training mode"):
        FoolboxPerturbation(cnn().train(), DeepFool()).perturb(images(2))
