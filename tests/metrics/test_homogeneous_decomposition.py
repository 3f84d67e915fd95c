import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from captum_alignment import linear_analysis
from captum_alignment.metrics import homogeneous_decomposition
from tests import literal, real
from tests.nets import TwoInputs, assert_unchanged, cnn, count_forward_passes, images, mlp, snapshot, two_inputs


def assert_is_literal(result, net, inputs):
    """The score, its linear part and named terms agree with one gradient per sample; all terms add up to the rest."""
    plain, parameters = unfolded(net)
    parameters |= {name: plain.get_parameter(name) for name in biases(net)}
    assert set(parameters) <= set(result.by_parameter)
    expected = literal.bias_terms(plain, inputs, result.target.tolist(), parameters)
    for i, (score, linear, terms) in enumerate(expected):
        scale = float(result.scale[i])
        assert float(result.score[i]) == pytest.approx(score, abs=1e-12 * scale)
        assert float(result.input[i]) == pytest.approx(linear, abs=1e-12 * scale)
        total = sum(float(term[i]) for term in result.by_parameter.values())
        assert total == pytest.approx(score - linear, abs=1e-9 * scale)
        for name, value in terms.items():
            assert float(result.by_parameter[name][i]) == pytest.approx(value, abs=1e-12 * scale), name


def biases(net):
    """The biases of ``net`` that are additive terms; those of batch norm are parts of one."""
    norms = [f"{name}." for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return {
        name: parameter
        for name, parameter in net.named_parameters()
        if name.endswith("bias") and not any(name.startswith(norm) for norm in norms)
    }


class Unfolded(nn.Module):
    """An eval-mode batch norm, written as a scale and its effective bias."""

    def __init__(self, norm):
        super().__init__()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.register_buffer("scale", scale.detach())
        self.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())

    def forward(self, x):
        return x * self.get_buffer("scale")[:, None, None] + self.bias[:, None, None]


def unfolded(net):
    """A copy without batch norm, and its effective biases by the name that the term has."""
    net, found = copy.deepcopy(net), {}
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent = net.get_submodule(name.rpartition(".")[0])
            new = Unfolded(module)
            setattr(parent, name.rpartition(".")[2], new)
            found[f"{name} (batch_norm)"] = new.bias
    return net, found


@pytest.mark.parametrize("name", real.ZOO[:-1])
def test_real_networks(zoo, shared, name):
    net, x = zoo.load(name).double(), real.images(shared, name, 8)
    result = homogeneous_decomposition(net, x)
    assert (result.relative_residual <= 1e-9).all()
    assert (result.bias.abs() > 1e-3).any()
    assert_is_literal(result, net, (x,))
    r = linear_analysis(net, x)
    assert ((r.linearized_robustness - r.binarized_alignment).abs() <= r.bias.abs() + 1e-12).all()
    assert ((r.alignment - r.binarized_alignment).abs() <= r.noncollinearity + 1e-12).all()
    margin = homogeneous_decomposition(net, x, of="margin", rival=r.rival)
    assert (margin.relative_residual <= 1e-9).all()
    torch.testing.assert_close(margin.score, r.gap)
    torch.testing.assert_close(margin.bias / r.binarized_gradient.flatten(1).norm(dim=1), r.bias)


@pytest.mark.slow
def test_a_real_network_with_a_thousand_classes(zoo, shared):
    net, x = zoo.load("imagenet_squeezenet").double(), real.images(shared, "imagenet_squeezenet", 2)
    result = homogeneous_decomposition(net, x)
    assert (result.relative_residual <= 1e-9).all()
    assert (result.by_parameter["bgr_mean"].abs() > 0.1).all()
    assert_is_literal(result, net, (x,))
    r = linear_analysis(net, x, candidates=20)
    assert ((r.linearized_robustness - r.binarized_alignment).abs() <= r.bias.abs() + 1e-12).all()
    assert ((r.alignment - r.binarized_alignment).abs() <= r.noncollinearity + 1e-12).all()
    margin = homogeneous_decomposition(net, x, of="margin", rival=r.rival)
    assert (margin.relative_residual <= 1e-9).all()
    torch.testing.assert_close(margin.bias / r.binarized_gradient.flatten(1).norm(dim=1), r.bias)


@pytest.mark.parametrize("name", real.TORCHVISION)
def test_torchvision_networks_with_randomised_parameters(name):
    x = 3 * torch.randn(2, 3, 64, 64, dtype=torch.float64)
    net = real.randomised(name, x)
    result = homogeneous_decomposition(net, x)
    assert (result.relative_residual <= 1e-9).all()
    clips = [term for key, term in result.by_parameter.items() if key.endswith("(hardtanh)")]
    assert len(clips) == sum(isinstance(module, nn.ReLU6) for module in net.modules())
    assert all((term.abs() > 1e-3).any() for term in clips)
    assert_is_literal(result, net, (x,))


@pytest.mark.slow
def test_a_transformer_is_not_piecewise_linear_and_says_so():
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    net = real.randomised("vit_b_16", x)
    nn.init.normal_(net.class_token)
    result = homogeneous_decomposition(net, x)
    assert (result.relative_residual > 1e-2).all()
    assert "not piecewise linear" in str(result)
    [(score, linear, terms)] = literal.bias_terms(net, (x,), result.target.tolist(), biases(net))
    assert float(result.score) == pytest.approx(score)
    assert float(result.input) == pytest.approx(linear)
    for name, value in terms.items():
        assert float(result.by_parameter[name]) == pytest.approx(value, abs=1e-9), name
    assert {"class_token", "encoder.pos_embedding"} == set(result.by_parameter) - set(terms)


def test_small_networks_targets_tuples_and_additional_arguments():
    net, x = cnn(), images()
    for target in (None, 2, torch.arange(8) % 5):
        assert_is_literal(homogeneous_decomposition(net, x, target), net, (x,))
    two, pair = TwoInputs(), two_inputs()
    shift = torch.randn(7, dtype=torch.float64)
    result = homogeneous_decomposition(two, pair, 1, (shift, 0.5))
    assert list(result.by_parameter) == ["a.bias", "b.bias", "out.bias"]
    assert (result.relative_residual < 1e-12).all()
    linear = sum((t * g).flatten(1).sum(1) for t, g in zip(pair, _gradients(two, pair, shift), strict=True))
    torch.testing.assert_close(result.input, linear)


def test_small_model_calls_change_nothing():
    net, x = TwoInputs(), two_inputs()
    extra = torch.randn(7, dtype=torch.float64), 0.5
    options: dict[str, Any]
    for options in ({}, {"of": "margin"}, {"of": "margin", "rival": torch.tensor([1, 2, 0, 1, 2, 0, 1])}):
        target = (torch.arange(7) % 3) if "rival" in options else None
        whole = homogeneous_decomposition(net, x, target, extra, **options)
        for size in (1, 3, 7, 9):
            found = homogeneous_decomposition(net, x, target, extra, **options, internal_batch_size=size)
            torch.testing.assert_close(vars(found), vars(whole), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="internal_batch_size: got 0"):
        homogeneous_decomposition(net, x, 1, extra, internal_batch_size=0)


def _gradients(net, pair, shift):
    leaves = [t.clone().requires_grad_() for t in pair]
    return torch.autograd.grad(net(*leaves, shift, 0.5)[:, 1].sum(), leaves)


def test_the_margin_and_its_rival():
    net, x = mlp(k=6), torch.randn(9, 6, dtype=torch.float64)
    r = linear_analysis(net, x)
    searched = homogeneous_decomposition(net, x, of="margin")
    assert searched.rival is not None
    assert torch.equal(searched.rival, r.rival)
    torch.testing.assert_close(searched.score, r.gap)
    given = homogeneous_decomposition(net, x, of="margin", rival=r.rival)
    torch.testing.assert_close(given.by_parameter, searched.by_parameter, rtol=0, atol=0)
    score, other = (homogeneous_decomposition(net, x, t) for t in (r.target, r.rival))
    for name, term in given.by_parameter.items():
        torch.testing.assert_close(term, score.by_parameter[name] - other.by_parameter[name])


@pytest.mark.parametrize("outputs", [1, None])
def test_one_signed_score_is_the_binary_classifier(outputs):
    line = nn.Linear(5, 1, dtype=torch.float64)
    x = torch.randn(9, 5, dtype=torch.float64)
    result = homogeneous_decomposition(line if outputs else lambda x: line(x).squeeze(1), x, of="margin")
    torch.testing.assert_close(result.score, line(x).abs().squeeze(1).detach())
    torch.testing.assert_close(result.bias.abs(), line.bias.detach().abs().expand(9))
    assert (result.relative_residual < 1e-12).all()


def test_the_margin_among_many_classes():
    net, x = mlp(k=100), torch.randn(4, 6, dtype=torch.float64)
    r = linear_analysis(net, x)
    result = homogeneous_decomposition(net, x, of="margin")
    torch.testing.assert_close(result.score, r.gap)
    assert list(result.by_parameter) == ["1.bias", "3.bias", "5.bias"]
    assert (result.relative_residual < 1e-12).all()


def test_one_forward_and_one_backward_pass():
    net, calls = cnn(), []
    count_forward_passes(net, calls)
    net[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    homogeneous_decomposition(net, images())
    assert calls == ["forward", "backward"]
    calls.clear()
    homogeneous_decomposition(net, images(), 0, of="margin", rival=1)
    assert calls == ["forward", "backward"]


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(1), nn.LayerNorm(8)])
def test_what_is_not_piecewise_linear_leaves_a_residual(activation):
    net = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 3)).double()
    result = homogeneous_decomposition(net, torch.randn(6, 5, dtype=torch.float64))
    assert (result.relative_residual > 1e-3).any()
    assert "not piecewise linear" in str(result)
    torch.testing.assert_close(result.residual, result.score - result.input - result.bias)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 5e-2), (torch.float32, 1e-5)])
def test_dtypes(dtype, tolerance):
    net, x = mlp(dtype=dtype), torch.rand(6, 6).to(dtype)
    result = homogeneous_decomposition(net, x)
    exact = homogeneous_decomposition(net.double(), x.double(), result.target)
    columns = [result.score, result.input, result.bias, result.residual, *result.by_parameter.values()]
    assert {c.dtype for c in columns} == {torch.float32}
    assert (result.relative_residual < tolerance).all()
    torch.testing.assert_close(result.bias.double(), exact.bias, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_runs_in_any_grad_mode_with_frozen_parameters_and_leaves_everything_as_it_came(mode):
    net = cnn()
    expected = homogeneous_decomposition(net, images())
    torch.manual_seed(0)
    net.requires_grad_(False)
    last = list(net.parameters())[-1]
    last.requires_grad_().grad = torch.ones_like(last)
    before = snapshot(net)
    torch.manual_seed(1)
    with mode():
        x = images()
        copy_of_x = x.clone()
        result = homogeneous_decomposition(net, x)
    assert_unchanged(net, before)
    assert torch.equal(x, copy_of_x)
    assert not x.requires_grad
    assert list(result.by_parameter) == list(expected.by_parameter)
    assert (result.relative_residual < 1e-12).all()
    assert not any(t.requires_grad for t in (result.score, result.input, *result.by_parameter.values()))


def test_text_and_dataframe():
    result = homogeneous_decomposition(cnn(), images())
    assert "the terms explain the score" in str(result)
    assert f"{result.by_parameter['8.bias'].median():.4g}" in str(result)
    frame = result.to_dataframe()
    assert len(frame) == 8
    assert frame["1 (batch_norm)"].tolist() == result.by_parameter["1 (batch_norm)"].tolist()
    assert "rival" not in frame
    many = nn.Sequential(*[nn.Linear(4, 4) for _ in range(14)])
    assert "and 4 smaller terms" in str(homogeneous_decomposition(many, torch.rand(2, 4)))


def test_bad_input_is_named():
    net, x = mlp(), torch.rand(2, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="of: got 'loss'"):
        homogeneous_decomposition(net, x, of="loss")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="rival: only a margin has one"):
        homogeneous_decomposition(net, x, rival=1)
    with pytest.raises(ValueError, match="rival: got the target's own class"):
        homogeneous_decomposition(net, x, 1, of="margin", rival=1)
    with pytest.raises(TypeError, match="rival: got float"):
        homogeneous_decomposition(net, x, of="margin", rival=1.0)
    with pytest.raises(ValueError, match="rival: got class 4, expected 0 to 3"):
        homogeneous_decomposition(net, x, 1, of="margin", rival=4)
    with pytest.raises(ValueError, match="target: got class 4, expected 0 to 3"):
        homogeneous_decomposition(net, x, 4)
    with pytest.raises(TypeError, match=r"inputs: got dtype torch\.int64"):
        homogeneous_decomposition(net, torch.zeros(2, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="inputs: NaN or infinite"):
        homogeneous_decomposition(net, x * math.nan)
    with pytest.raises(ValueError, match="do not depend on the inputs"):
        homogeneous_decomposition(lambda x: net(x).detach(), x)
    with pytest.raises(ValueError, match="do not depend on the inputs"):
        homogeneous_decomposition(lambda x: net(torch.ones_like(x)), x)
    with pytest.raises(ValueError, match="training mode"):
        homogeneous_decomposition(cnn().train(), images())
