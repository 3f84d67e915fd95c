import math
import weakref

import foolbox
import pytest
import torch
from foolbox import attacks as fb

from captum_alignment._core._gradients import ScoreGraph
from captum_alignment.robust import DeepFool
from tests.nets import mlp

FEW = "captum_alignment.robust._nearest_boundary._FEW_FEATURES"
SMALL = "captum_alignment.robust._deepfool._SMALL_FEATURES"
PEERS = {2: fb.L2DeepFoolAttack, math.inf: fb.LinfDeepFoolAttack}


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
    # The first step asks for all four rivals at once; each later one for the last rival, then nobody asks again.
    assert sizes == [4 * 8] + 6 * [8]


def test_only_samples_that_need_another_rival_take_the_pass(monkeypatch):
    net, x = mlp(k=12), torch.rand(40, 6, dtype=torch.float64)
    model = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu")
    monkeypatch.setattr(SMALL, 0)
    sizes = backward_sizes(monkeypatch, DeepFool(), model, x, net(x).argmax(1))
    assert sizes[:9] == [40] * 9
    assert min(sizes) < 20


@pytest.mark.parametrize("norm", PEERS)
def test_what_is_still_asked_goes_through_at_once_where_it_fits(norm, monkeypatch):
    net, x = mlp(k=12), torch.rand(20, 6, dtype=torch.float64)
    model, label = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu"), net(x).argmax(1)
    found, passes = {}, {}
    for small in (0, 1000):
        monkeypatch.setattr(SMALL, small)
        with monkeypatch.context() as patch:
            passes[small] = backward_sizes(patch, DeepFool(norm=norm), model, x, label)
        found[small] = DeepFool(norm=norm).run(model, x, label)
    assert 20 < max(passes[1000]) <= 128
    assert len(passes[1000]) < len(passes[0])
    assert (net(found[0]).argmax(1) != label).all()
    torch.testing.assert_close(found[1000], found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", PEERS)
@pytest.mark.parametrize("alike", [False, True])
def test_the_first_step_finds_unlikely_rivals_with_long_gradients(norm, alike, monkeypatch):
    """One such rival, or two neighbours in the order of scores, whose gradients are nearly the same."""
    monkeypatch.setattr(FEW, 0)
    torch.manual_seed(0)
    line, x = torch.nn.Linear(40, 10, dtype=torch.float64).eval(), torch.rand(16, 40, dtype=torch.float64)
    rivals = [6, 7] if alike else [7]
    with torch.no_grad():
        line.bias.copy_(torch.arange(0, -20, -2))
        line.weight[7] *= 60
        if alike:
            line.weight[6] = 1.1 * line.weight[7]
        line.bias[rivals] += line.bias[0] - line(x)[:, rivals].amax(0)  # never ahead, not the most likely, the nearest
    model, label = foolbox.PyTorchModel(line, bounds=(-90, 90), device="cpu"), line(x).argmax(1)
    found, theirs = DeepFool(norm=norm).run(model, x, label), PEERS[norm]().run(model, x, label)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-9)
    assert torch.isin(line(found).argmax(1), torch.tensor(rivals)).sum() > 8


def test_likely_rivals_alone_are_asked_where_the_rest_is_far(monkeypatch):
    monkeypatch.setattr(FEW, 0)
    line, x = torch.nn.Linear(40, 10, dtype=torch.float64).eval(), torch.zeros(16, 40, dtype=torch.float64)
    with torch.no_grad():
        line.weight[0] *= 10  # the gradient that all differences share
        line.bias.copy_(torch.tensor([20.0, 19.0] + [15.0] * 8))
    model = foolbox.PyTorchModel(line, bounds=(-90, 90), device="cpu")
    # The second class, then the mixture of the other eight.
    assert backward_sizes(monkeypatch, DeepFool(), model, x, line(x).argmax(1)) == [16, 16]


def test_a_sample_that_needs_all_rivals_does_not_take_the_others_along(monkeypatch):
    monkeypatch.setattr(FEW, 0)
    line, x = torch.nn.Linear(40, 10, dtype=torch.float64).eval(), torch.zeros(16, 40, dtype=torch.float64)
    with torch.no_grad():
        line.bias.copy_(torch.tensor([20.0, 19.0] + [-200.0] * 8))
        line.weight[:2, 0], line.weight[2:, 0] = 0, torch.linspace(2.18, 2.185, 8)
    x[3, 0] = 100
    model = foolbox.PyTorchModel(line, bounds=(-900, 900), device="cpu")
    label, forwards = line(x).argmax(1), []
    line.register_forward_hook(lambda module, args, output: forwards.append(len(args[0])))
    sizes = backward_sizes(monkeypatch, DeepFool(steps=1), model, x, label)
    # The likely rival of all, the mixture of the others, and those of sample 3 alone.
    assert sizes[:2] == [16, 16]
    assert set(sizes[2:]) == {1}
    assert forwards == [16, 1]


@pytest.mark.parametrize("norm", PEERS)
def test_a_likely_rival_with_a_dead_gradient_hides_nobody(norm, monkeypatch):
    monkeypatch.setattr(FEW, 0)
    line, x = torch.nn.Linear(40, 10, dtype=torch.float64).eval(), torch.zeros(8, 40, dtype=torch.float64)
    with torch.no_grad():
        line.bias.copy_(torch.linspace(9, 0, 10))
        line.weight[1] = line.weight[0]
    model = foolbox.PyTorchModel(line, bounds=(-90, 90), device="cpu")
    found = DeepFool(norm=norm).run(model, x, line(x).argmax(1))
    theirs = PEERS[norm]().run(model, x, line(x).argmax(1))
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-9)
    assert (line(found).argmax(1) > 1).all()


@pytest.mark.parametrize("norm", PEERS)
@pytest.mark.parametrize(("features", "classes", "candidates"), [(34, 12, 10), (34, 60, None)])
def test_screening_never_misses_on_random_networks(norm, features, classes, candidates, monkeypatch):
    monkeypatch.setattr(FEW, 0)
    for seed in range(6):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(features, 3 * features),
            torch.nn.ReLU(),
            torch.nn.Linear(3 * features, 3 * features),
            torch.nn.ReLU(),
            torch.nn.Linear(3 * features, classes),
        )
        net, x = net.double().eval(), torch.rand(20, features, dtype=torch.float64)
        model = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu")
        ours = DeepFool(norm=norm, candidates=candidates).run(model, x, net(x).argmax(1))
        theirs = PEERS[norm](candidates=candidates).run(model, x, net(x).argmax(1))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", PEERS)
@pytest.mark.parametrize("small", [0, 1000])
def test_lengths_of_another_linear_piece_are_forgotten_though_the_last_rival_is_masked(norm, small, monkeypatch):
    monkeypatch.setattr(SMALL, small)

    class Masked(torch.nn.Module):
        """Past 0.5 in the second feature the third class has no score, and the fourth is steep."""

        masked = -torch.inf

        def forward(self, x):
            past = x[:, 1] > 0.5
            third = torch.where(past, self.masked, 30 * x[:, 1] - 30)
            return torch.stack([0 * x[:, 0], x[:, 0] - 3, third, torch.where(past, 50, 1) * x[:, 2] - 31], 1)

    net, x = Masked().eval(), torch.zeros(1, 3, dtype=torch.float64)
    model = foolbox.PyTorchModel(net, bounds=(-90, 90), device="cpu")
    ours = DeepFool(norm=norm).run(model, x, torch.tensor([0]))
    net.masked = -1e9
    theirs = PEERS[norm]().run(model, x, torch.tensor([0]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_one_graph_at_a_time(monkeypatch):
    alive, most, build = weakref.WeakSet(), [], ScoreGraph.__init__

    def counted(self, *args):
        alive.add(self)
        most.append(len(alive))
        build(self, *args)

    monkeypatch.setattr(ScoreGraph, "__init__", counted)
    net, x = mlp(k=12), torch.rand(20, 6, dtype=torch.float64)
    DeepFool().run(foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu"), x, net(x).argmax(1))
    assert len(most) > 10
    assert max(most) == 1
