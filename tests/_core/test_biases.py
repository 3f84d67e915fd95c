"""Names, layouts of the batch, and what a trace leaves behind."""

import gc
import weakref
from functools import partial
from typing import Any

import foolbox as fb
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment._core._biases import Trace, contribution
from captum_alignment.metrics import homogeneous_decomposition
from tests import literal
from tests.nets import assert_unchanged, cnn, images, mlp, snapshot


def assert_same_one_by_one(net, x, exact=True):
    """Samples of a batch have the terms that each has alone, and no residual if ``exact``."""
    result = homogeneous_decomposition(net, x)
    for i in range(len(x)):
        alone = homogeneous_decomposition(net, x[i : i + 1], int(result.target[i]))
        assert set(alone.by_parameter) <= set(result.by_parameter)
        for name, term in result.by_parameter.items():
            expected = alone.by_parameter.get(name, torch.zeros(1, dtype=x.dtype))
            torch.testing.assert_close(term[i : i + 1], expected, rtol=1e-9, atol=1e-12, msg=name)
    assert result.by_parameter
    if exact:
        assert (result.relative_residual < 1e-12).all()
    return result


class Tokens(nn.Module):
    """Piecewise linear, every kind of constant, and with all parameters positive no ReLU closes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.rand(2))
        self.embed = nn.Linear(2, 2)
        self.token = nn.Parameter(torch.rand(1, 1, 2))
        self.position = nn.Parameter(torch.rand(1, 4, 2))
        self.head = nn.Linear(2, 3)
        self.unused = nn.Linear(2, 2)
        for p in self.parameters():
            nn.init.uniform_(p)
        self.double()

    def forward(self, x):
        x = (x * 2 - self.mean) / 0.5
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.position
        x = torch.cat([x.relu(), torch.ones(len(x), 1, 2, dtype=x.dtype)], 1)
        return self.head(x.sum(1)) + 1


def test_hand_computed_terms():
    net, x = Tokens(), 1 + torch.rand(5, 3, 2, dtype=torch.float64)
    result = homogeneous_decomposition(net, x, 1)
    w, e = net.head.weight[1].detach(), net.embed.weight.detach()
    expected = {
        "mean": w @ e @ (-3 * net.get_buffer("mean") / 0.5),
        "embed.bias": w @ (3 * net.embed.bias.detach()),
        "token": w @ net.token.detach()[0, 0],
        "position": w @ net.position.detach()[0].sum(0),
        "(cat)": w.sum(),
        "head.bias": net.head.bias.detach()[1],
        "(add)": torch.tensor(1.0, dtype=torch.float64),
    }
    assert list(result.by_parameter) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(result.by_parameter[name], value.expand(5), msg=name)
    torch.testing.assert_close(result.input, (2 * x / 0.5).sum(1) @ e.T @ w)
    torch.testing.assert_close(result.bias, sum(expected.values()).expand(5))  # pyright: ignore
    assert_same_one_by_one(net, x)


def test_a_plain_callable_has_one_term_and_a_bound_method_all():
    net, x = Tokens(), torch.rand(5, 3, 2, dtype=torch.float64)
    named = homogeneous_decomposition(net.forward, x)
    other = nn.Linear(1, 1)  # one of two that can be seen: whose names would they be?
    total = homogeneous_decomposition(lambda x: net(x) if other is not None else x, x)
    assert "token" in named.by_parameter
    assert list(total.by_parameter) == ["forward_func"]
    torch.testing.assert_close(total.by_parameter["forward_func"], named.bias)
    torch.testing.assert_close(total.bias, total.score - total.input)


def test_a_wrapped_module_keeps_its_names():
    net, x = mlp(), torch.rand(5, 6, dtype=torch.float64)
    named = homogeneous_decomposition(net, x)
    last = net[5]
    wrapped: list[Any] = [
        lambda x: net(x),
        lambda x: {"logits": net(x)}["logits"],
        partial(lambda scale, x: net(scale * x), 1.0),
        lambda x: last(net[:5](x)),
        fb.PyTorchModel(net, bounds=(0, 1), device="cpu"),
    ]
    for forward_func in wrapped:
        found = homogeneous_decomposition(forward_func, x)
        torch.testing.assert_close(found.by_parameter, named.by_parameter)
        torch.testing.assert_close(found.input, named.input)


def test_what_is_added_outside_of_a_wrapped_module_is_the_functions():
    net, x = mlp(), torch.rand(5, 6, dtype=torch.float64)
    named = homogeneous_decomposition(net, x, 1)
    found = homogeneous_decomposition(lambda x: net(x) + 3, x, 1)
    assert list(found.by_parameter) == [*named.by_parameter, "forward_func"]
    torch.testing.assert_close(found.by_parameter["forward_func"], torch.full((5,), 3.0, dtype=torch.float64))
    preprocessing = {"mean": 0.5, "std": 0.25}
    model = fb.PyTorchModel(net, bounds=(0, 1), device="cpu", preprocessing=preprocessing)
    found, literal = homogeneous_decomposition(model, x, 1), homogeneous_decomposition(net, (x - 0.5) / 0.25, 1)
    assert list(found.by_parameter) == ["forward_func", *named.by_parameter]
    for name, term in literal.by_parameter.items():
        torch.testing.assert_close(found.by_parameter[name], term)
    assert (found.relative_residual < 1e-12).all()
    # A module that is seen but does not run names nothing.
    found = homogeneous_decomposition(lambda x: x @ torch.ones(6, 3).to(x) + (1 if net.training else 2), x)
    assert list(found.by_parameter) == ["forward_func"]
    # What is not piecewise linear outside leaves its residual.
    assert (homogeneous_decomposition(lambda x: net(x).square(), x, 1).relative_residual > 1e-6).all()


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.shift = nn.ModuleDict({"a": Shift()})
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(2, 3, 4)), nn.Parameter(torch.randn(2, 3))])
        self.double()

    def forward(self, x):
        x = self.shift["a"](self.twice(self.twice(x).relu()))
        return F.linear(x, self.weights[0][1], self.weights[1][1]).relu() - 0.5


class Shift(nn.Module):
    def forward(self, x):
        return 1 - (x - 0.25)


def test_names_of_nested_modules_functions_and_views_of_parameters():
    net, x = Nested(), torch.randn(6, 4, dtype=torch.float64)
    result = assert_same_one_by_one(net, x)
    assert list(result.by_parameter) == ["twice.bias", "shift.a (sub)", "shift.a (rsub)", "weights.1", "(sub)"]
    literally = literal.bias_terms(net, (x,), result.target.tolist(), {"b": net.twice.bias})
    torch.testing.assert_close(
        result.by_parameter["twice.bias"], torch.tensor([t["b"] for *_, t in literally]).double()
    )


class Sequences(nn.Module):
    """Works with samples in the second dimension, as many tokens as samples."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(3, 4), nn.Linear(4, 3)
        self.position = nn.Parameter(torch.randn(4, 1, 3))
        self.double()

    def forward(self, x):
        x = x.transpose(0, 1) + self.position
        return self.out(self.inner(x).relu()).mean(0)


class Windows(nn.Module):
    """Folds parts of each sample into the first dimension, samples slowest."""

    def __init__(self):
        super().__init__()
        self.inner, self.position = nn.Linear(3, 3), nn.Parameter(torch.randn(2, 3))
        self.double()

    def forward(self, x):
        n = len(x)
        x = (self.inner(x.reshape(n * 2, 2, 3)) + self.position).relu()
        return x.reshape(n, 4, 3).sum(1)


class Views(nn.Module):
    """Joins two views of the batch along the first dimension, samples fastest."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.double()

    def forward(self, x):
        both = self.inner(torch.cat([x[:, 0], 3 * x[:, 1]])).relu()
        return both[: len(x)] + both[len(x) :]


@pytest.mark.parametrize("make", [Sequences, Windows, Views])
def test_samples_are_told_apart_wherever_they_lie(make):
    assert_same_one_by_one(make(), torch.randn(4, 4, 3, dtype=torch.float64))


def test_only_networks_that_move_the_samples_run_one_by_one():
    x = torch.randn(4, 4, 3, dtype=torch.float64)
    assert [Trace(make(), (x,)).moved for make in (Sequences, Windows, Views)] == [True, False, True]
    assert not Trace(cnn(), (images().to(memory_format=torch.channels_last),)).moved


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_biases_inside_attention(batch_first):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 2, batch_first=batch_first)
            self.out = nn.Linear(4, 3)
            for p in self.parameters():
                nn.init.normal_(p)
            self.double().eval()

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            x = x + self.attend(x, x, x, need_weights=False)[0]
            return self.out(x.mean(1 if batch_first else 0))

    net, x = Attention(), torch.randn(3, 5, 4, dtype=torch.float64)
    result = assert_same_one_by_one(net, x, exact=False)
    parameters = {name: p for name, p in net.named_parameters() if name.endswith("bias")}
    assert list(result.by_parameter) == list(parameters)
    for i, (score, linear, terms) in enumerate(literal.bias_terms(net, (x,), result.target.tolist(), parameters)):
        assert float(result.score[i]) == pytest.approx(score)
        assert float(result.input[i]) == pytest.approx(linear)
        for name, value in terms.items():
            assert float(result.by_parameter[name][i]) == pytest.approx(value), name
    assert (result.relative_residual > 1e-3).all()


@pytest.mark.parametrize(("kind", "exact"), [("relu", True), ("tanh", False)])
def test_the_biases_inside_a_recurrent_layer(kind, exact):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.RNN(3, 4, nonlinearity=kind, batch_first=True), nn.Linear(4, 3)
            self.double().eval()

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    result = assert_same_one_by_one(Recurrent(), torch.randn(3, 4, 3, dtype=torch.float64), exact)
    assert list(result.by_parameter) == ["rnn.bias_ih_l0", "rnn.bias_hh_l0", "out.bias"]


def test_what_does_not_depend_on_the_input_is_one_constant():
    class Hyper(nn.Module):
        def __init__(self):
            super().__init__()
            self.code = nn.Parameter(torch.randn(4))
            self.make, self.out = nn.Linear(4, 3), nn.Linear(3, 2)
            self.double()

        def forward(self, x, extra):
            return self.out(x + self.make(self.code).relu() + x.detach() + extra)

    net, x = Hyper(), torch.randn(5, 3, dtype=torch.float64)
    extra = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) * 2,)
    result = homogeneous_decomposition(net, x, 0, extra)
    assert list(result.by_parameter) == ["(add)", "out.bias"]
    w = net.out.weight[0]
    expected = (net.make(net.code).relu() + x + extra[0]) @ w
    torch.testing.assert_close(result.by_parameter["(add)"], expected.detach())
    assert (result.relative_residual < 1e-12).all()


def test_parts_that_the_score_does_not_use_are_absent():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            self.other(x)
            return self.one(x)

    result = homogeneous_decomposition(Heads(), torch.rand(2, 3))
    assert list(result.by_parameter) == ["one.bias"]


def test_compiled_and_scripted_networks():
    net, x = mlp(), torch.rand(3, 6, dtype=torch.float64)
    eager = homogeneous_decomposition(net, x)
    compiled = homogeneous_decomposition(torch.compile(net, backend="eager"), x)
    assert list(compiled.by_parameter) == list(eager.by_parameter)
    torch.testing.assert_close(compiled.bias, eager.bias)
    graph = torch.fx.symbolic_trace(net)
    torch.testing.assert_close(homogeneous_decomposition(graph, x).by_parameter, eager.by_parameter)


def test_nothing_is_left_behind_even_after_an_error():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn()

        def forward(self, x):
            self.net(x)
            raise RuntimeError("on purpose")

    net = Fails().eval()
    next(net.parameters()).requires_grad_(False)
    before = snapshot(net)
    hooks = [len(m._forward_pre_hooks) for m in net.modules()]
    with pytest.raises(RuntimeError, match="on purpose"):
        homogeneous_decomposition(net, images())
    homogeneous_decomposition(net.net, images())
    assert_unchanged(net, before)
    assert hooks == [len(m._forward_pre_hooks) for m in net.modules()]
    net.net(images()).sum().backward()
    learning = [p.grad is not None for p in net.parameters()]
    assert learning == [False] + [True] * (len(learning) - 1)


def test_the_graph_is_freed():
    trace = Trace(cnn(), (images(),))
    trace.gradient(torch.ones_like(trace.graph.scores), lambda c, g: contribution(c, g, 8))
    held = weakref.ref(trace._recorder)
    del trace
    gc.collect()
    assert held() is None
