"""Adversarial examples against plain Foolbox and loops written by hand; the Lightning callback against such a loop."""

from typing import Any

import foolbox
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import AdversarialTraining, L2SignPGD, LipschitzRegularization, adversarial_examples
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs
from tests.training.test_lightning import Batches, Module, fit

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

NAMES = ["pgd-l2", "pgd-linf", "pgd-l2-sign"]
every_attack = pytest.mark.parametrize("attack", NAMES)


def by_hand(net, x, y, attack, epsilon, steps):
    """Projected gradient ascent, sample by sample, without a random start."""
    size, found = 2.5 * epsilon / steps, []
    for sample, label in zip(x, y, strict=True):
        point = sample.clone()
        for _ in range(steps):
            leaf = point.clone().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(net(leaf.unsqueeze(0)), label.unsqueeze(0)), leaf)
            step = {"pgd-l2": g / g.norm(), "pgd-linf": g.sign(), "pgd-l2-sign": g.sign() / g.numel() ** 0.5}[attack]
            change = point + size * step - sample
            if attack == "pgd-linf":
                change = change.clamp(-epsilon, epsilon)
            elif change.norm() > epsilon:
                change = change * epsilon / change.norm()
            point = (sample + change).clamp(0, 1)
        found.append(point)
    return torch.stack(found)


@every_attack
def test_it_is_projected_gradient_ascent(attack):
    net, x = cnn(), images()
    y = torch.arange(8) % 5
    ours = adversarial_examples(net, x, y, attack=attack, epsilon=0.3, steps=5, random_start=False)
    torch.testing.assert_close(ours, by_hand(net, x, y, attack, 0.3, 5), rtol=1e-9, atol=1e-11)
    gain = F.cross_entropy(net(ours), y) - F.cross_entropy(net(x), y)
    assert gain > 0.01
    distance = (ours - x).flatten(1).norm(torch.inf if attack == "pgd-linf" else 2, dim=1)
    assert distance.max() <= 0.3 + 1e-9
    assert not ours.requires_grad


@every_attack
def test_the_model_and_the_global_random_numbers_stay_as_they_were(attack):
    net, x = cnn(), images()
    net.train()
    net[1].eval()
    F.cross_entropy(net(x), torch.zeros(8, dtype=torch.long)).backward()
    before, state = snapshot(net), torch.get_rng_state()
    adversarial_examples(net, x, 0, attack=attack, epsilon=0.3, steps=2)
    assert_unchanged(net, before)
    assert torch.equal(state, torch.get_rng_state())


def test_random_starts_come_from_the_generator():
    net, x = mlp(), torch.rand(4, 6, dtype=torch.float64)
    options = {"attack": "pgd-linf", "epsilon": 0.1, "steps": 1, "step_size": 1e-3}
    assert torch.equal(adversarial_examples(net, x, 0, **options), adversarial_examples(net, x, 0, **options))
    generator = torch.Generator().manual_seed(3)
    one, two = (adversarial_examples(net, x, 0, **options, generator=generator) for _ in range(2))
    assert not torch.equal(one, two)
    again = adversarial_examples(net, x, 0, **options, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, again)


def test_several_inputs_halves_and_radius_zero():
    net, (a, b) = TwoInputs(), two_inputs()
    found = adversarial_examples(net, (a, b), 0, attack="pgd-l2", epsilon=0.5, steps=4)
    size = torch.cat([(u - v).flatten(1) for u, v in zip(found, (a, b), strict=True)], 1).norm(dim=1)
    assert size.max() <= 0.5 + 1e-9
    assert size.min() > 0.1
    half = adversarial_examples(mlp(dtype=torch.bfloat16), torch.rand(4, 6).bfloat16(), 0, attack="pgd-l2", epsilon=0.5)
    assert half.dtype == torch.bfloat16
    x = torch.rand(4, 6, dtype=torch.float64)
    assert torch.equal(adversarial_examples(mlp(), x, 0, attack="pgd-linf", epsilon=0), x)


def test_the_sign_attack_is_a_foolbox_attack():
    net, x = cnn(dtype=torch.float32), images(dtype=torch.float32)
    y = net(x).argmax(1)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
    attack = L2SignPGD(rel_stepsize=0.5, steps=5, random_start=False)
    _, found, _ = attack(model, x, y, epsilons=0.3)
    expected = adversarial_examples(net, x, y, attack="pgd-l2-sign", epsilon=0.3, steps=5, random_start=False)
    torch.testing.assert_close(found, expected)


class Plain(Module):
    """A deterministic step, so that a loop written by hand can follow it."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.0)


@pytest.mark.parametrize("regularized", [False, True])
def test_lightning_trains_on_adversarial_examples_and_restores_the_batch(regularized):
    ours, theirs = Plain(), Plain()
    theirs.load_state_dict(ours.state_dict())
    data = Batches()
    kept = [x.clone() for x, _ in data]
    options = {"attack": "pgd-linf", "steps": 3, "random_start": False}
    callbacks = [LipschitzRegularization(0.5)] * regularized + [AdversarialTraining(0.2, **options)]
    fit(ours, data, *callbacks)
    assert all(torch.equal(x, before) and not x.requires_grad for (x, _), before in zip(data, kept, strict=True))
    optimizer = theirs.configure_optimizers()
    for x, y in data:
        moved = adversarial_examples(theirs, x, y, epsilon=0.2, **options).requires_grad_()
        loss = F.cross_entropy(theirs(moved), y)
        if regularized:
            (g,) = torch.autograd.grad(loss, moved, create_graph=True)
            loss = loss + 0.5 * (len(x) * g).flatten(1).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def test_the_schedule_scales_epsilon_and_exceptions_restore_the_batch():
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            seen.append((batch[0] - kept).abs().max().item())
            if len(seen) == 2:
                raise RuntimeError("stop")
            return super().training_step(batch, batch_idx)

    data, seen = Batches(), []
    data.batches = data.batches[:1] * 3
    kept = data.batches[0][0].clone()
    with pytest.raises(RuntimeError, match="stop"):
        fit(Fails(), data, AdversarialTraining(0.2, attack="pgd-linf", steps=2, schedule=lambda step: step / 2))
    assert seen == pytest.approx([0.0, 0.1], abs=1e-6)
    assert torch.equal(data.batches[0][0], kept)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"attack": "pgd"}, ValueError, "attack: got 'pgd', expected one of 'pgd-l2'"),
        ({"epsilon": -1.0}, ValueError, "epsilon: got -1.0"),
        ({"steps": 0}, ValueError, "steps: got 0, expected a positive integer"),
        ({"step_size": 0}, ValueError, "step_size: got 0"),
        ({"bounds": (1, 0)}, ValueError, "bounds: got"),
        ({"inputs": torch.full((2, 6), 3.0).double()}, ValueError, r"inputs: lie in \[3, 3\], expected .* bounds="),
        ({"inputs": torch.full((2, 6), torch.nan).double()}, ValueError, "inputs: NaN"),
        ({"target": 9}, ValueError, "target: got class 9"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    options = {"inputs": torch.rand(2, 6, dtype=torch.float64), "target": 0, "attack": "pgd-l2", "epsilon": 0.1}
    with pytest.raises(error, match=message):
        adversarial_examples(mlp(), **(options | change))


def test_wrong_options_of_the_callback_are_named():
    with pytest.raises(ValueError, match="epsilon: got -1"):
        AdversarialTraining(-1)
    data = Batches()
    data.batches = [x for x, _ in data]
    with pytest.raises(TypeError, match="batch: got Tensor, expected"):
        fit(Plain(), data, AdversarialTraining(0.1))


@pytest.mark.parametrize("attack", ["pgd-l2", "pgd-linf", "pgd-l2-sign"])
def test_bounds_of_each_channel(attack):
    torch.manual_seed(0)
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.3, 0.2])
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    images = (torch.rand(5, 3, 4, 4) - mean[:, None, None]) / std[:, None, None]
    low, high = (0 - mean) / std, (1 - mean) / std
    for random_start in (True, False):
        found = adversarial_examples(
            net, images, 0, attack=attack, epsilon=4.0, steps=5, bounds=(low, high.tolist()), random_start=random_start
        )
        pixels = found * std[:, None, None] + mean[:, None, None]
        assert pixels.min() >= -1e-6
        assert pixels.max() <= 1 + 1e-6
        assert (pixels < 1e-6).any()
        assert (pixels > 1 - 1e-6).any()
        column = (low.view(3, 1, 1), high.view(3, 1, 1))
        options: dict[str, Any] = {"attack": attack, "epsilon": 4.0, "steps": 5, "random_start": random_start}
        assert adversarial_examples(net, images, 0, bounds=column, **options).equal(found)
    with pytest.raises(ValueError, match="bounds: got"):
        adversarial_examples(net, images, 0, attack=attack, epsilon=1.0, bounds=(low[:2], high[:2]))
    with pytest.raises(ValueError, match="inputs: lie in"):
        adversarial_examples(net, images, 0, attack=attack, epsilon=1.0, bounds=(low, high / 2))
