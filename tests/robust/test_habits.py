"""What Foolbox's users expect of an attack, asked of ours: its own tests of attacks, as tables."""

import math

import eagerpy as ep
import foolbox
import numpy as np
import pytest
import torch
from foolbox import attacks as fb
from torch import nn

from captum_alignment import adversarial_distance
from captum_alignment.robust import FAB, DecisionSearch, DeepFool, GradientAttack, RivalSearch
from tests.nets import cnn, images, mlp

NORMS = [2, math.inf]
GRADIENT = [GradientAttack, DeepFool, FAB, RivalSearch]
ATTACKS = [*GRADIENT, DecisionSearch]


def make(attack, norm):
    return attack(norm=norm, steps=3) if attack is DecisionSearch else attack(norm=norm)


def flat(dtype=torch.float32):
    return mlp(k=6, dtype=dtype), torch.rand(20, 6, dtype=torch.float64).to(dtype), (-3.0, 4.0)


def convolutional(dtype=torch.float32):
    return cnn(dtype=dtype), images(12, dtype), (0.0, 1.0)


def pixels(dtype=torch.float32):
    net, x = cnn(dtype=dtype), images(12, dtype)
    return Scaled(net).eval(), (255 * x).to(dtype), (0.0, 255.0)


class Scaled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x / 255)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make_model", [flat, convolutional, pixels])
def test_epsilons_success_and_clipping_as_foolbox_has_them(attack, norm, make_model):
    net, x, bounds = make_model()
    model = foolbox.PyTorchModel(net, bounds=bounds, device="cpu")
    labels = net(x).argmax(1)
    near, far = (adversarial_distance(net, x, norm=norm, bounds=bounds).distance.median() * k for k in (0.5, 4))
    raw, clipped, success = make(attack, norm)(model, x, labels, epsilons=[near.item(), far.item(), None])
    assert success.shape == (3, len(x))
    for k in range(3):
        adversarial = model(clipped[k]).argmax(1) != labels
        assert torch.equal(success[k], adversarial)
        assert (clipped[k] >= bounds[0]).all()
        assert (clipped[k] <= bounds[1]).all()
    assert success[0].sum() <= success[1].sum() <= success[2].sum()
    assert torch.equal(raw[0], raw[2])
    size = (clipped[0] - x).flatten(1).norm(norm, dim=1)
    assert (size <= near * (1 + 1e-4)).all()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type(attack, dtype):
    net, x, bounds = flat()
    model, labels = foolbox.PyTorchModel(net, bounds=bounds, device="cpu"), net(x).argmax(1)
    expected = make(attack, 2)(model, x, labels, epsilons=None)[0]
    found = make(attack, 2).run(model, x, foolbox.criteria.Misclassification(labels.to(dtype)))
    torch.testing.assert_close(found, expected)
    distance = adversarial_distance(net, x, labels.to(dtype), attacks=make(attack, 2), bounds=bounds).distance
    assert distance.isfinite().any()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make_model", [flat, pixels])
def test_misclassified_inputs_stay_bit_for_bit(attack, norm, make_model):
    net, x, bounds = make_model()
    labels = net(x).argmax(1)
    wrong = torch.arange(len(x)) % 2 == 0
    labels[wrong] = (labels[wrong] + 1) % net(x).shape[1]
    model = foolbox.PyTorchModel(net, bounds=bounds, device="cpu")
    points = make(attack, norm)(model, x, labels, epsilons=None)[0]
    assert torch.equal(points[wrong], x[wrong])
    assert not torch.equal(points[~wrong], x[~wrong])


@pytest.mark.parametrize("attack", GRADIENT)
def test_eagerpy_tensors_come_back_as_such_and_repeats_work(attack):
    net, x, bounds = flat()
    model, labels = foolbox.PyTorchModel(net, bounds=bounds, device="cpu"), net(x).argmax(1)
    found = make(attack, 2)(model, ep.astensor(x), ep.astensor(labels), epsilons=None)[0]
    assert isinstance(found, ep.PyTorchTensor)
    repeated = make(attack, 2).repeat(2)(model, x, labels, epsilons=None)[0]
    torch.testing.assert_close(repeated, make(attack, 2)(model, x, labels, epsilons=None)[0])


@pytest.mark.parametrize("attack", ATTACKS)
def test_other_frameworks_and_one_column_are_refused_in_a_sentence(attack):
    net, x, bounds = flat()
    model, labels = foolbox.PyTorchModel(net, bounds=bounds, device="cpu"), net(x).argmax(1)
    with pytest.raises(TypeError, match="inputs: got ndarray, expected a torch tensor and a PyTorchModel"):
        make(attack, 2).run(model, x.numpy(), foolbox.criteria.Misclassification(ep.astensor(labels)))
    column = foolbox.PyTorchModel(nn.Linear(6, 1).eval(), bounds=bounds, device="cpu")
    with pytest.raises(ValueError, match=r"model: returned scores of shape \(20, 1\), expected \(N, K >= 2\)"):
        make(attack, 2).run(column, x, torch.zeros(20, dtype=torch.long))
    with pytest.raises(TypeError, match="inputs: got ndarray, expected a tensor"):
        adversarial_distance(net, x.numpy(), bounds=bounds)  # pyright: ignore
    with pytest.raises(TypeError, match=r"inputs: got dtype torch.uint8, expected a floating dtype"):
        adversarial_distance(net, x.to(torch.uint8), bounds=bounds)
    assert adversarial_distance(net, x, np.asarray(labels), attacks=make(attack, 2), bounds=bounds).attack.max() == 0


@pytest.mark.parametrize("attack", GRADIENT)
def test_models_without_a_graph_are_refused_in_a_sentence(attack):
    net, x, bounds = flat()

    class WithoutGraph(nn.Module):
        def forward(self, x):
            return net(x.detach()).detach()

    model = foolbox.PyTorchModel(WithoutGraph().eval(), bounds=bounds, device="cpu")
    with pytest.raises(ValueError, match="forward_func: its scores do not depend on the inputs through autograd"):
        make(attack, 2).run(model, x, net(x).argmax(1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make_model", [flat, convolutional, pixels])
def test_deepfool_succeeds_wherever_foolbox_s_does(norm, dtype, make_model):
    net, x, bounds = make_model(dtype)
    model, labels = foolbox.PyTorchModel(net, bounds=bounds, device="cpu"), net(x).argmax(1)
    theirs = (fb.L2DeepFoolAttack if norm == 2 else fb.LinfDeepFoolAttack)(loss="logits")
    ours = DeepFool(norm=norm)(model, x, labels, epsilons=None)[2]
    points, _, peers = theirs(model, x, labels, epsilons=None)
    peers &= points.flatten(1).isfinite().all(1)  # to Foolbox an image of NaN is a success
    assert ours[peers].all()
    assert peers.any()


def test_deepfool_leaves_no_ties_of_halves_that_foolbox_s_does():
    torch.manual_seed(4)
    net, x = mlp(k=6, dtype=torch.bfloat16), torch.rand(200, 6, dtype=torch.float64).to(torch.bfloat16)
    model, labels = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu"), net(x).argmax(1)
    points, _, peers = fb.LinfDeepFoolAttack(loss="logits")(model, x, labels, epsilons=None)
    peers &= points.flatten(1).isfinite().all(1)
    assert DeepFool(norm=math.inf)(model, x, labels, epsilons=None)[2][peers].all()
    assert peers.sum() > 100
