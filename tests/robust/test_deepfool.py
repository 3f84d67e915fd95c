import math

import foolbox
import pytest
import torch
from foolbox import attacks as fb

from captum_alignment import Shared, adversarial_distance
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


@pytest.mark.parametrize("norm", PEERS)
def test_large_inputs_go_in_groups_to_the_same_points(norm, monkeypatch):
    net, x = mlp(k=12), torch.rand(40, 6, dtype=torch.float64)
    model, label = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu"), net(x).argmax(1)
    together, sizes = DeepFool(norm=norm).run(model, x, label), []
    assert (net(together).argmax(1) != label).all()
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    for features, group in ((1, 1), (6 * 7, 7)):
        monkeypatch.setattr("captum_alignment.robust._deepfool._GROUP_FEATURES", features)
        monkeypatch.setattr("captum_alignment.robust._deepfool._ROWS", 1)
        torch.testing.assert_close(DeepFool(norm=norm).run(model, x, label), together, rtol=0, atol=1e-12)
        assert max(sizes) == group
        sizes.clear()


def test_arguments_as_long_as_a_group_are_still_shared(monkeypatch):
    net, x, shift = mlp(k=12), torch.rand(11, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)

    def shifted(x, shift):
        return net(x + shift.sum(0))

    def found():
        return adversarial_distance(shifted, x, None, Shared(shift), attacks=DeepFool(), bounds=(-9, 9)).distance

    together = found()
    assert together.isfinite().all()
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
    nobody = x[2:3].expand(2, -1)  # not one sample has a rival
    assert torch.equal(DeepFool(norm=norm, candidates=None).run(model, nobody, model(nobody).argmax(1)), nobody)


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
        monkeypatch.setattr("captum_alignment.robust._deepfool._ROWS", 1)
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


@pytest.mark.parametrize("arguments", [torch.tensor([2.0]), torch.full((1, 12), 2.0)])
def test_no_pass_has_more_rows_than_the_caller_s_batch(arguments):
    net, x = mlp(k=12), torch.rand(5, 6, dtype=torch.float64)

    def one(x, scale):
        assert len(x) == 1
        return net(x) / scale

    found = adversarial_distance(
        one, x, None, Shared(arguments), attacks=DeepFool(), bounds=(-9, 9), internal_batch_size=1, refine=False
    )
    expected = adversarial_distance(net, x, None, attacks=DeepFool(), bounds=(-9, 9), refine=False)
    assert expected.distance.isfinite().all()
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-6, atol=0)


def test_few_samples_share_passes():
    net, x = mlp(k=12), torch.rand(3, 6, dtype=torch.float64)
    sizes = []
    net.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    together = adversarial_distance(net, x, attacks=DeepFool(), bounds=(-9, 9), refine=False)
    assert 3 < max(sizes) <= 3 * 9
    apart = adversarial_distance(net, x, attacks=DeepFool(), bounds=(-9, 9), refine=False, internal_batch_size=3)
    torch.testing.assert_close(together.distance, apart.distance, rtol=1e-6, atol=0)


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
