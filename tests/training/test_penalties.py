"""The penalty against its definition written out sample by sample, and what must hold for every option."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from captum_alignment.training import input_gradient_penalty

OPTIONS = list(product(["loss", "score", "margin"], [1, 2, math.inf], [True, False]))


class SmoothNet(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8).double(), nn.Linear(8, classes).double()

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).tanh())


def batch(n=5, classes=4):
    return torch.rand(n, 2, 3, dtype=torch.float64), torch.arange(n) % classes


def literal(net, inputs, target, of, norm, squared):
    """‖∇q‖ of one sample after the other, from the definitions of q and of the dual norms."""
    penalties = []
    for sample, t in zip(inputs, target.tolist(), strict=True):
        x = sample.clone().requires_grad_()
        z = net(x.unsqueeze(0)).squeeze(0)
        if z.ndim == 0 or len(z) == 1:
            z = torch.stack([-z.reshape(()) / 2, z.reshape(()) / 2])
        others = [z[j] for j in range(len(z)) if j != t]
        q = {
            "loss": -torch.log(z[t].exp() / z.exp().sum()),
            "score": z[t],
            "margin": z[t] - max(others, key=Tensor.item),
        }[of]
        (g,) = torch.autograd.grad(q, x, create_graph=True)
        size = {1: g.abs().max(), 2: (g * g).sum().sqrt(), math.inf: g.abs().sum()}[norm]
        penalties.append(size * size if squared else size)
    return torch.stack(penalties)


def penalty(net, inputs, target, **options):
    leaf = inputs.clone().requires_grad_()
    return input_gradient_penalty(net(leaf), leaf, target, **options)


def parameter_gradients(value, net):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()), materialize_grads=True)])


@pytest.mark.parametrize(("of", "norm", "squared"), OPTIONS)
@pytest.mark.parametrize("classes", [4, 1])
def test_values_and_parameter_gradients_are_those_of_the_definition(of, norm, squared, classes):
    net = SmoothNet(classes)
    inputs, target = batch(classes=max(classes, 2))
    ours = penalty(net, inputs, target, of=of, norm=norm, squared=squared)
    reference = literal(net, inputs, target, of, norm, squared)
    torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-13)
    gradients = parameter_gradients(ours.mean(), net)
    assert gradients.abs().max() > 1e-3
    torch.testing.assert_close(gradients, parameter_gradients(reference.mean(), net), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("of", "norm", "squared"), OPTIONS)
def test_parameter_gradients_are_finite_differences(of, norm, squared):
    net = SmoothNet()
    inputs, target = batch()
    weight = net.first.weight
    direction = torch.randn_like(weight)
    direction /= direction.norm()

    start = weight.detach().clone()

    def at(step):
        with torch.no_grad():
            weight.copy_(start + step * direction)
        return penalty(net, inputs, target, of=of, norm=norm, squared=squared).mean()

    slope = (torch.autograd.grad(at(0), weight)[0] * direction).sum()
    difference = (at(1e-6).detach() - at(-1e-6).detach()).item() / 2e-6
    assert slope.item() == pytest.approx(difference, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("of", "norm", "squared"), OPTIONS)
def test_each_sample_counts_by_itself(of, norm, squared):
    net = SmoothNet()
    inputs, target = batch(6)
    options = {"of": of, "norm": norm, "squared": squared}
    whole = penalty(net, inputs, target, **options)
    split = [penalty(net, inputs[part], target[part], **options) for part in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(whole, torch.cat(split))
    order = torch.randperm(6)
    torch.testing.assert_close(whole[order], penalty(net, inputs[order], target[order], **options))


@pytest.mark.parametrize(("of", "norm", "squared"), OPTIONS)
def test_a_tuple_is_one_vector(of, norm, squared):
    net = SmoothNet()
    inputs, target = batch()
    a, b = (part.clone().requires_grad_() for part in (inputs[:, :1], inputs[:, 1:]))
    scores = net(torch.cat([a, b], 1))
    ours = input_gradient_penalty(scores, (a, b), target, of=of, norm=norm, squared=squared)
    torch.testing.assert_close(ours, penalty(net, inputs, target, of=of, norm=norm, squared=squared))


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("squared", [True, False])
def test_a_zero_gradient_has_penalty_and_parameter_gradient_zero(norm, squared):
    net = SmoothNet()
    nn.init.zeros_(net.last.weight)
    inputs, target = batch()
    value = penalty(net, inputs, target, norm=norm, squared=squared)
    assert value.tolist() == [0] * 5
    assert parameter_gradients(value.sum(), net).tolist() == [0] * (6 * 8 + 8 + 8 * 4 + 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_accumulate_in_float32(dtype):
    features = 70_001  # its square norm exceeds the largest float16, and bfloat16 stops counting ones at 256
    x = torch.ones(1, features, dtype=dtype, requires_grad=True)
    value = input_gradient_penalty(x @ torch.eye(features, 2, dtype=dtype) + x.sum(1, True), x, 1, of="score", norm=2)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(features + 3, abs=0.1)  # the gradient is 2 in one entry, else 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_keep_the_probabilities_of_unlikely_classes(dtype):
    x = torch.tensor([[9.3, 0.0, 0.3]]).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours, reference = (input_gradient_penalty(z * 1, z, 1, squared=False) for z in (x, exact))
    torch.testing.assert_close(ours.double(), reference, rtol=torch.finfo(dtype).eps, atol=0)
    ours, reference = (input_gradient_penalty(z * 1, z, 0, squared=False) for z in (x, exact))
    torch.testing.assert_close(ours.double(), reference, rtol=torch.finfo(dtype).eps, atol=0)


def test_target_none_is_the_predicted_class():
    net = SmoothNet()
    inputs, _ = batch()
    predicted = net(inputs).argmax(1)
    torch.testing.assert_close(penalty(net, inputs, None), penalty(net, inputs, predicted))


def test_an_unused_tensor_of_a_tuple_adds_nothing():
    net = SmoothNet()
    inputs, target = batch()
    used, unused = inputs.clone().requires_grad_(), torch.rand(5, 7, requires_grad=True)
    value = input_gradient_penalty(net(used), (used, unused), target)
    torch.testing.assert_close(value, penalty(net, inputs, target))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"of": "logit"}, ValueError, r"of: got 'logit', expected one of 'loss', 'score', 'margin'"),
        ({"norm": 3}, ValueError, r"norm: got 3, expected 1, 2 or inf"),
        ({"target": 4}, ValueError, r"target: got class 4"),
        ({"target": torch.zeros(3, dtype=torch.long)}, ValueError, r"target: got shape \(3,\)"),
        ({"target": torch.zeros(5)}, TypeError, r"target: got a tensor of torch.float32"),
        ({"target": torch.tensor([[1.0, 1, 0, 0]]).expand(5, 4)}, ValueError, r"row 0 is .*, expected probabilities"),
        ({"scores": [1.0]}, TypeError, r"scores: got list"),
        ({"scores": torch.zeros(4, 4)}, ValueError, r"scores: got torch.float32 of shape \(4, 4\) for 5 samples"),
        ({"scores": torch.zeros(5, 4, requires_grad=True)}, ValueError, r"scores: does not depend on the inputs"),
        ({"scores": torch.zeros(5, 4)}, ValueError, r"scores: does not depend on the inputs"),
        ({"inputs": torch.zeros(5, 2)}, ValueError, r"inputs: do not require grad"),
        ({"inputs": torch.zeros(5, 2, dtype=torch.long)}, TypeError, r"inputs: got dtype torch.int64"),
        ({"inputs": ()}, ValueError, r"inputs: got an empty tuple"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    inputs, target = batch()
    inputs.requires_grad_()
    arguments = {"scores": SmoothNet()(inputs), "inputs": inputs, "target": target} | change
    with pytest.raises(error, match=message):
        input_gradient_penalty(**arguments)


def test_probabilities_of_a_masked_class_are_those_of_the_others():
    net, x = nn.Linear(4, 3, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64, requires_grad=True)
    p, scores = torch.rand(5, 3, dtype=torch.float64).softmax(1), net(x)
    padded = [nn.functional.pad(t, (1, 0), value=value) for t, value in ((scores, -math.inf), (p, 0.0))]
    masked, plain = input_gradient_penalty(padded[0], x, padded[1]), input_gradient_penalty(scores, x, p)
    assert (plain > 0).all()
    torch.testing.assert_close(masked, plain)
    found = [torch.autograd.grad(t.sum(), list(net.parameters()), retain_graph=True) for t in (masked, plain)]
    torch.testing.assert_close(*found)
