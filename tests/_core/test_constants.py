"""Every way to add a constant: a plain function of it is decomposed without residual, and its constant is found."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment.metrics import homogeneous_decomposition

C = torch.tensor([[0.4, -0.7, 1.1, 0.3, -0.2]], dtype=torch.float64)
MASK = torch.tensor([[True, False, True, False, False]])


def in_place(function):
    """``function`` of a copy that it may change."""

    def run(x):
        x = x * 1
        result = function(x)
        return x if result is None else result

    return run


def assign(x):
    x[:, 1:3] = C[:, 1:3]


def assign_into_a_constant(x):
    whole = torch.ones(len(x), 6, dtype=x.dtype)
    whole[:, 1:] = x
    return whole


def add_through_a_view(x):
    x[:, 1:3].add_(C[:, 1:3])


def add_through_an_index(x):
    x[:, 1:3] += C[:, 1:3]


def clip_through_a_view(x):
    x[:, 1:3].clamp_(0.2, 0.4)


def weight(*shape):
    return torch.linspace(-1, 2, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


CASES = {
    "add": lambda x: x + C,
    "radd": lambda x: 2 + x,
    "sub": lambda x: x - C,
    "rsub": lambda x: 1 - x,
    "alpha": lambda x: torch.add(x, C, alpha=3),
    "iadd": in_place(lambda x: x.__iadd__(C)),
    "add_": in_place(lambda x: x.add_(C).relu_()),
    "addcmul": lambda x: torch.addcmul(x, C, C),
    "addcmul of the input": lambda x: torch.addcmul(C, x, C),
    "lerp": lambda x: torch.lerp(x, C, 0.3),
    "cat": lambda x: torch.cat([x, C.expand(len(x), -1)], 1),
    "stack": lambda x: torch.stack([C.expand(len(x), -1), x], 2).flatten(1),
    "hstack": lambda x: torch.hstack([x, C.expand(len(x), -1)]),
    "where": lambda x: torch.where(MASK, x, C),
    "where number": lambda x: torch.where(MASK, 3.0, x),
    "masked_fill": lambda x: x.masked_fill(MASK, 0.7),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([1, 2]), 0.7),
    "scatter": lambda x: x.scatter(1, torch.tensor([[1, 2]] * len(x)), 0.7),
    "pad": lambda x: F.pad(x, (1, 2), value=0.5),
    "setitem": in_place(assign),
    "setitem into a constant": assign_into_a_constant,
    "copy_": in_place(lambda x: x[:, :2].copy_(C[:, :2]) + x[:, 2:4]),
    "view": in_place(add_through_a_view),
    "index": in_place(add_through_an_index),
    "view of a clip": in_place(clip_through_a_view),
    "linear": lambda x: F.linear(x, weight(4, 5), weight(4)),
    "linear keywords": lambda x: F.linear(input=x, weight=weight(4, 5), bias=weight(4)),
    "addmm": lambda x: torch.addmm(weight(4), x, weight(5, 4), beta=2),
    "baddbmm": lambda x: torch.baddbmm(weight(1, 4), x.unsqueeze(1), weight(1, 5, 4).expand(len(x), -1, -1)).squeeze(1),
    "bilinear": lambda x: F.bilinear(x, C.expand(len(x), -1), weight(4, 5, 5), weight(4)),
    "conv1d": lambda x: F.conv1d(x.unsqueeze(1), weight(3, 1, 2), weight(3), padding=1).flatten(1),
    "conv_transpose1d": lambda x: F.conv_transpose1d(x.unsqueeze(1), weight(1, 3, 2), weight(3)).flatten(1),
    "conv2d": lambda x: F.conv2d(x.reshape(-1, 1, 1, 5), weight(3, 1, 1, 2), bias=weight(3)).flatten(1),
    "batch_norm": lambda x: F.batch_norm(x, weight(5), weight(5).abs(), C[0], C[0]),
    "torch.batch_norm": lambda x: torch.batch_norm(x, C[0], C[0], weight(5), weight(5).abs(), False, 0.1, 1e-5, False),
    "batch_norm 2d": lambda x: F.batch_norm(x.reshape(-1, 5, 1, 1), weight(5), weight(5).abs()).flatten(1),
    "instance_norm": lambda x: F.instance_norm(
        x.unsqueeze(2), weight(5), weight(5).abs(), C[0], C[0], use_input_stats=False
    ).flatten(1),
    "relu6": lambda x: F.relu6(10 * x),
    "relu6 in place": in_place(lambda x: F.relu6(x.mul_(10), inplace=True)),
    "hardtanh": lambda x: F.hardtanh(x - 0.4, -0.1, 0.3),
    "hardtanh_": in_place(lambda x: F.hardtanh_(x, 0.0, 0.7)),
    "clamp": lambda x: x.clamp(0.3, 0.6),
    "clamp_": in_place(lambda x: torch.clamp_(x, max=0.5)),
    "clip": lambda x: x.clip(C, C + 1),
    "threshold": lambda x: F.threshold(x, 0.5, 0.2),
    "maximum": lambda x: torch.maximum(x, C),
    "max": lambda x: x.max(C),
    "minimum of both": lambda x: torch.minimum(x - 0.5, x.mean(1, keepdim=True)),
    "hardsigmoid": lambda x: F.hardsigmoid(8 * x - 4),
    "softshrink": lambda x: F.softshrink(x, 0.3),
}


@pytest.mark.parametrize("name", CASES)
def test_the_constant_is_all_that_is_not_linear(name):
    function, x = CASES[name], torch.rand(3, 5, dtype=torch.float64)
    mix = torch.randn(2, function(x).shape[1], dtype=torch.float64)
    result = homogeneous_decomposition(lambda x: function(x) @ mix.T, x, 0)
    torch.testing.assert_close(result.residual, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (result.bias.abs() > 1e-3).any()
    torch.testing.assert_close(result.score, result.input + result.bias)


HOMOGENEOUS = {
    "skip": lambda x: x.relu() + x,
    "in place": in_place(lambda x: x.mul_(2).relu_()),
    "pad": lambda x: F.pad(x, (1, 2)),
    "max over features": lambda x: x.max(1, keepdim=True).values * torch.ones(2, dtype=x.dtype),
    "pool": lambda x: F.max_pool1d(x, 2) + F.avg_pool1d(x, 2),
    "masked": lambda x: x.masked_fill(MASK, 0),
    "clamp as relu": lambda x: (x - x.mean(1, keepdim=True)).clamp(min=0),
    "leaky": lambda x: F.leaky_relu(x - x.mean(1, keepdim=True)) + F.prelu(-x, torch.tensor(0.3, dtype=x.dtype)),
    "split": lambda x: x.chunk(2, 1)[0] * 3,
}


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_a_homogeneous_function_has_no_term(name):
    function, x = HOMOGENEOUS[name], torch.rand(1, 5, dtype=torch.float64)
    mix = torch.randn(2, function(x).shape[1], dtype=torch.float64)
    result = homogeneous_decomposition(lambda x: function(x) @ mix.T, x, 0)
    assert result.by_parameter == {}
    torch.testing.assert_close(result.score, result.input)


def test_the_masks_of_attention_are_no_terms():
    x = torch.rand(3, 5, dtype=torch.float64)
    mask = torch.zeros(5, dtype=torch.float64).masked_fill(MASK[0], -torch.inf)
    for masked in (lambda x: x + mask, lambda x: x.masked_fill(MASK, -torch.inf)):
        result = homogeneous_decomposition(lambda x, f=masked: f(x).softmax(1) * 2, x, 1)
        assert result.by_parameter == {}
        assert result.residual.isfinite().all()


def test_of_a_layer_norm_the_bias():
    norm, out = nn.LayerNorm(5).double(), nn.Linear(5, 3).double()
    nn.init.normal_(norm.bias)
    x = torch.rand(4, 5, dtype=torch.float64)
    result = homogeneous_decomposition(nn.Sequential(norm, out), x, 1)
    assert list(result.by_parameter) == ["0.bias", "1.bias"]
    torch.testing.assert_close(result.by_parameter["0.bias"], (out.weight[1] @ norm.bias).detach().expand(4))
    # A layer norm does not change with the size of its input, up to eps: <x, ∇Psi> vanishes and what it passes remains.
    torch.testing.assert_close(result.residual, (F.layer_norm(x, [5]) @ out.weight[1]).detach(), rtol=1e-3, atol=1e-3)


def test_functional_batch_norm_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="uses batch norm in training mode"):
        homogeneous_decomposition(lambda x: F.batch_norm(x, None, None, training=True), torch.ones(4, 5))
