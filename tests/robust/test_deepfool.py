import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb

from captum_alignment import adversarial_distance
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment.robust import DeepFool
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs

PEERS = {2: fb.L2DeepFoolAttack, math.inf: fb.LinfDeepFoolAttack}


@pytest.mark.parametrize("norm", PEERS)
@pytest.mark.parametrize("candidates", [3, 10, None])
def test_iterates_are_foolbox_s(norm, candidates):
    net, x = mlp(k=12), torch.rand(20, 6, dtype=torch.float64)
    model = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu")
    label = net(x).argmax(1)
    ours, _, success = DeepFool(norm=norm, candidates=candidates)(model, x, label, epsilons=None)
    theirs, _, expected = PEERS[norm](candidates=candidates)(model, x, label, epsilons=None)
    assert torch.equal(success, expected)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_real_networks(zoo, mnist):
    x = mnist[0][:20].double()
    for name in ("mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry"):
        net = zoo.load(name).double()
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        for norm, peer in PEERS.items():
            ours, _, _ = DeepFool(norm=norm)(model, x, net(x).argmax(1), epsilons=None)
            theirs, _, _ = peer()(model, x, net(x).argmax(1), epsilons=None)
            distance = [(adv - x).flatten(1).norm(norm, dim=1) for adv in (ours, theirs)]
            torch.testing.assert_close(*distance, rtol=1e-6, atol=0)


def test_one_forward_per_step_and_finished_samples_leave():
    net, x = cnn(), images(30)
    sizes = []
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    DeepFool(steps=6)(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, net(x).argmax(1), epsilons=None)
    attack = sizes[1:-1]  # before: this test's own labels; after: Foolbox's check
    assert attack == sorted(attack, reverse=True)
    assert attack[-1] < 30
    # One forward for each step, and one more only where samples have left the batch.
    assert len(attack) <= 6 + len(set(attack))


def backward_sizes(monkeypatch, attack, model, x, label):
    """The samples of each backward pass of ``attack``."""
    sizes, gradient = [], ScoreGraph.gradient
    monkeypatch.setattr(ScoreGraph, "gradient", lambda self, w: (sizes.append(len(w)), gradient(self, w))[1])
    attack.run(model, x, label)
    return sizes


def test_on_one_linear_piece_a_step_takes_one_backward_pass(monkeypatch):
    line, x = torch.nn.Linear(6, 5, dtype=torch.float64).eval(), torch.rand(8, 6, dtype=torch.float64)
    model = foolbox.PyTorchModel(line, bounds=(-50, 50), device="cpu")
    # Undershooting steps: the boundary is never crossed, and the piece never left.
    attack = DeepFool(steps=7, overshoot=-0.9)
    sizes = backward_sizes(monkeypatch, attack, model, x, line(x).argmax(1))
    # Each step asks for the last rival, then nobody asks again; only the first step asks for all four.
    assert sizes == [8] * (4 + 6)


def test_only_samples_that_need_another_rival_take_the_pass(monkeypatch):
    net, x = mlp(k=12), torch.rand(40, 6, dtype=torch.float64)
    model = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu")
    sizes = backward_sizes(monkeypatch, DeepFool(), model, x, net(x).argmax(1))
    assert sizes[:9] == [40] * 9
    assert min(sizes) < 20


@pytest.mark.parametrize("norm", PEERS)
def test_screening_never_misses_on_random_networks(norm):
    for seed in range(12):
        torch.manual_seed(seed)
        layers = [
            torch.nn.Linear(3, 8),
            torch.nn.ReLU(),
            torch.nn.Linear(8, 8),
            torch.nn.ReLU(),
            torch.nn.Linear(8, 12),
        ]
        net, x = torch.nn.Sequential(*layers).double().eval(), torch.rand(20, 3, dtype=torch.float64)
        model = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu")
        ours = DeepFool(norm=norm).run(model, x, net(x).argmax(1))
        theirs = PEERS[norm](candidates=10).run(model, x, net(x).argmax(1))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_already_misclassified_samples_stay():
    net, x = cnn(), images(4)
    label = net(x).argmax(1)
    label[2] = (label[2] + 1) % 5
    adversarials, _, success = DeepFool()(
        foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, label, epsilons=None
    )
    assert torch.equal(adversarials[2], x[2])
    assert success[2]


def test_nothing_mutated_and_per_sample_arguments_follow():
    net = cnn()
    before = snapshot(net)
    x = images(5)
    adversarial_distance(net, x, attacks=DeepFool())
    assert_unchanged(net, before)
    two, inputs, shift = TwoInputs(), two_inputs(), torch.randn(7, dtype=torch.float64)
    result = adversarial_distance(two, inputs, None, shift, attacks=DeepFool(), bounds=(-5, 5))
    assert not result.errors
    assert (two(*result.adversarials, shift).argmax(1) != two(*inputs, shift).argmax(1)).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="norm: got 1"):
        DeepFool(norm=1)
    with pytest.raises(ValueError, match="steps: got 0"):
        DeepFool(steps=0)
    with pytest.raises(ValueError, match="candidates: got 1"):
        DeepFool(candidates=1)
    model = foolbox.PyTorchModel(cnn(), bounds=(0, 1), device="cpu")
    with pytest.raises(ValueError, match="expected Misclassification"):
        DeepFool()(model, images(1), foolbox.criteria.TargetedMisclassification(torch.tensor([1])), epsilons=None)
