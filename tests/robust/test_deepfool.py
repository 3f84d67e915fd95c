import math
import weakref

import foolbox
import pytest
import torch
from foolbox import attacks as fb

from captum_alignment import adversarial_distance
from captum_alignment._core._gradients import ScoreGraph
from captum_alignment.robust import DeepFool
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs

FEW = "captum_alignment.robust._nearest_boundary._FEW_FEATURES"
SMALL = "captum_alignment.robust._deepfool._SMALL_FEATURES"
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


@pytest.mark.parametrize("few", [0, 10_000])
def test_real_networks(zoo, mnist, few, monkeypatch):
    monkeypatch.setattr(FEW, few)
    for name, n in {"mnist_mlp": 100, "mnist_cnn": 20, "mnist_kw": 20, "mnist_madry": 20}.items():
        net, x = zoo.load(name).double(), mnist[0][:n].double()
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        for norm, peer in PEERS.items():
            ours, _, _ = DeepFool(norm=norm)(model, x, net(x).argmax(1), epsilons=None)
            theirs, _, _ = peer()(model, x, net(x).argmax(1), epsilons=None)
            distance = [(adv - x).flatten(1).norm(norm, dim=1) for adv in (ours, theirs)]
            torch.testing.assert_close(*distance, rtol=1e-6, atol=0)


def test_one_forward_per_step_and_finished_samples_leave(monkeypatch):
    monkeypatch.setattr(SMALL, 0)
    net, x = cnn(), images(30)
    sizes = []
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    DeepFool(steps=6)(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, net(x).argmax(1), epsilons=None)
    attack = sizes[1:-1]  # before: this test's own labels; after: Foolbox's check
    assert attack[0] == 30
    assert attack[-1] < 30
    # Passes repeated for the few samples that need another gradient cost less than what the finished ones save.
    assert sum(attack) < 6 * 30


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
    assert max(passes[1000]) == 20
    assert len(passes[1000]) < len(passes[0])
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
def test_large_inputs_go_in_groups_to_the_same_points(norm, monkeypatch):
    net, x = mlp(k=12), torch.rand(40, 6, dtype=torch.float64)
    model, label = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu"), net(x).argmax(1)
    together, sizes = DeepFool(norm=norm).run(model, x, label), []
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    for features, group in ((1, 1), (6 * 7, 7)):
        monkeypatch.setattr("captum_alignment.robust._deepfool._GROUP_FEATURES", features)
        torch.testing.assert_close(DeepFool(norm=norm).run(model, x, label), together, rtol=0, atol=1e-12)
        assert max(sizes) == group
        sizes.clear()


def test_arguments_as_long_as_a_group_are_still_shared(monkeypatch):
    net, x, shift = mlp(k=12), torch.rand(11, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)

    def shifted(x, shift):
        return net(x + shift.sum(0))

    def found():
        return adversarial_distance(shifted, x, None, shift, attacks=DeepFool(), bounds=(-9, 9)).distance

    together = found()
    monkeypatch.setattr("captum_alignment.robust._deepfool._GROUP_FEATURES", 6 * 3)
    torch.testing.assert_close(found(), together)


@pytest.mark.parametrize("norm", PEERS)
def test_masked_classes_and_samples_without_finite_gradients(norm):
    net = mlp(k=12)

    class Masked(torch.nn.Module):
        def forward(self, x):
            first, scores = x[:, :1], net(x).index_fill(1, torch.tensor([3, 5]), -torch.inf)
            scores = scores + 0 * (first - 0.5).abs().sqrt()  # 0 · inf is no number
            steep = torch.where(first == 0.75, (first - 0.75) * 1e200 * 1e200, 0)  # 0, with slope inf
            scores = scores + torch.eye(12)[0] * steep
            alone = torch.arange(12) == scores.argmax(1, keepdim=True)
            return scores.masked_fill((first == 0.25) & ~alone, -torch.inf)  # no rival

    x = torch.rand(40, 6, dtype=torch.float64) * 0.7
    stay = torch.arange(40) < 3
    x[stay, 0] = torch.tensor([0.5, 0.75, 0.25], dtype=torch.float64)
    model = foolbox.PyTorchModel(Masked().eval(), bounds=(-3, 4), device="cpu")
    label = model(x).argmax(1)
    ours = DeepFool(norm=norm, candidates=None).run(model, x, label)
    theirs = PEERS[norm](candidates=10).run(model, x[~stay], label[~stay])
    torch.testing.assert_close(ours[~stay], theirs, rtol=0, atol=1e-9)
    assert torch.equal(ours[stay], x[stay])


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


def test_already_misclassified_samples_stay():
    net, x = cnn(), images(4)
    label = net(x).argmax(1)
    label[2] = (label[2] + 1) % 5
    adversarials, _, success = DeepFool()(
        foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, label, epsilons=None
    )
    assert torch.equal(adversarials[2], x[2])
    assert success[2]


def test_nothing_mutated_and_per_sample_arguments_follow(monkeypatch):
    net = cnn()
    before = snapshot(net)
    x = images(5)
    adversarial_distance(net, x, attacks=DeepFool())
    assert_unchanged(net, before)
    two, inputs, shift = TwoInputs(), two_inputs(), torch.randn(7, dtype=torch.float64)
    for features in (2**17, 1):  # all samples together, and each in a group of its own
        monkeypatch.setattr("captum_alignment.robust._deepfool._GROUP_FEATURES", features)
        result = adversarial_distance(two, inputs, None, shift, attacks=DeepFool(), bounds=(-5, 5))
        assert not result.errors
        assert (two(*result.adversarials, shift).argmax(1) != two(*inputs, shift).argmax(1)).all()


@pytest.mark.parametrize("norm", PEERS)
def test_a_sample_keeps_its_own_class_among_equal_scores(norm):
    net, x = mlp(k=40), torch.zeros(200, 6, dtype=torch.float64)
    shift = torch.randint(0, 4, (200, 40)).double()

    def scores(x):
        return net(x) - net(torch.zeros_like(x)).detach() + shift[: len(x)]

    model = foolbox.PyTorchModel(Wrapped(scores), bounds=(-1, 1), device="cpu")
    label = shift.argmax(1)
    found = DeepFool(norm=norm, steps=1, candidates=None).run(model, x, label)
    assert (model(found).argmax(1) != label).all()
    assert found.abs().max() < 1e-3


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


@pytest.mark.parametrize("arguments", [torch.tensor([2.0]), torch.full((1, 12), 2.0)])
def test_no_pass_has_more_rows_than_the_caller_s_batch(arguments):
    net, x = mlp(k=12), torch.rand(5, 6, dtype=torch.float64)

    def one(x, scale):
        assert len(x) == 1
        return net(x) / scale

    found = adversarial_distance(
        one, x, None, arguments, attacks=DeepFool(), bounds=(-9, 9), internal_batch_size=1, refine=False
    )
    expected = adversarial_distance(net, x, None, attacks=DeepFool(), bounds=(-9, 9), refine=False)
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-6, atol=0)


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


@pytest.mark.parametrize("scores", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("inputs", [torch.float32, torch.float64])
def test_scores_of_another_precision(inputs, scores):
    net, x = mlp(k=12).to(scores), torch.rand(30, 6, dtype=torch.float64).to(inputs)

    def mixed(x):
        return net(x.to(scores))

    model = foolbox.PyTorchModel(Wrapped(mixed), bounds=(-3, 4), device="cpu")
    label = mixed(x).argmax(1)
    for norm, peer in PEERS.items():
        ours, _, success = DeepFool(norm=norm)(model, x, label, epsilons=None)
        theirs, _, expected = peer(candidates=10)(model, x, label, epsilons=None)
        assert ours.dtype == inputs
        coarse = scores.itemsize == 2  # what is near a tie is left to rounding
        assert (success == expected).float().mean() >= (0.8 if coarse else 1)
        both = success & expected
        lengths = [(points - x)[both].norm(norm, dim=1) for points in (ours, theirs)]
        torch.testing.assert_close(
            *(length.median() for length in lengths), rtol=0.05 if coarse else 1e-4, atol=0, check_dtype=False
        )


class Wrapped(torch.nn.Module):
    """A function as the module that Foolbox asks for."""

    def __init__(self, function):
        super().__init__()
        self.forward = function
        self.eval()


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
