"""A certificate is never above the truth: against attacks, brute force and the exact mixed-integer program."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from captum_alignment.metrics import linear_analysis
from captum_alignment.robust import NotPiecewiseLinear, adversarial_distance, certified_distance
from tests.nets import TwoInputs, assert_unchanged, cnn, images, mlp, snapshot, two_inputs

NORMS = [1, 2, math.inf]
EFFORTS = ["fast", "medium", "thorough"]


class Random(nn.Module):
    """A small network of random parts: skips, pooling, clips, slopes, in-place operations."""

    def __init__(self, seed, parts):
        super().__init__()
        torch.manual_seed(seed)
        self.parts = parts
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in parts])
        self.norm = nn.BatchNorm1d(6)
        self.norm.running_mean.normal_()  # pyright: ignore[reportOptionalMemberAccess]
        self.norm.running_var.uniform_(0.5, 2)  # pyright: ignore[reportOptionalMemberAccess]
        self.out = nn.Linear(6, 3)
        self.double().eval()

    def forward(self, x):
        for part, layer in zip(self.parts, self.layers, strict=True):
            z = layer(x)
            if part == "relu":
                x = z.relu_()
            elif part == "leaky":
                x = nn.functional.leaky_relu(z, 0.2)
            elif part == "clip":
                x = z.clamp(-0.3, 0.5)
            elif part == "abs":
                x = z.abs()
            elif part == "skip":
                x = x + self.norm(z).relu()
            elif part == "max":
                x = nn.functional.max_pool1d(z.unsqueeze(1), 3, 1, 1).squeeze(1)
            elif part == "mean":
                x = x - nn.functional.avg_pool1d(z.unsqueeze(1), 3, 1, 1).squeeze(1).relu()
            else:
                x = torch.minimum(z, x)
        return self.out(x)


def inside(x, radius, norm, bounds, n):
    """Points of the ball, most of them on its rim, some of them at corners."""
    d = torch.randn(n, x.numel(), dtype=x.dtype)
    d[::3] = d[::3].sign()
    d[1::3] *= torch.rand(len(d[1::3]), x.numel()) < 0.3
    size = torch.linalg.vector_norm(d, norm, dim=1, keepdim=True).clamp(min=1e-30)
    points = x.reshape(1, -1) + d / size * radius
    return (points if bounds is None else points.clamp(*bounds)).reshape(n, *x.shape)


def is_sound(net, x, norm, bounds, effort, points=4000):
    radius = certified_distance(net, x, norm=norm, bounds=bounds, effort=effort)
    labels = net(x).argmax(1)
    for sample, label, r in zip(x, labels, radius.tolist(), strict=True):
        assert (net(inside(sample, min(r, 1e3), norm, bounds, points)).argmax(1) == label).all()
    assert (radius > 0).all()
    with warnings.catch_warnings():  # no adversarial within the bounds
        warnings.simplefilter("ignore", UserWarning)
        found = adversarial_distance(net, x, norm=norm, bounds=bounds or (-50, 50)).distance
    assert (radius <= found * (1 + 1e-9)).all()


PARTS = st.lists(
    st.sampled_from(["relu", "leaky", "clip", "abs", "skip", "max", "mean", "min"]), min_size=1, max_size=4
)


@settings(max_examples=8)
@given(st.integers(0, 2**31), PARTS, st.sampled_from(NORMS), st.booleans(), st.sampled_from(EFFORTS))
def test_no_point_inside_has_another_class(seed, parts, norm, bounded, effort):
    net = Random(seed, parts)
    is_sound(net, torch.rand(2, 6).double(), norm, (0, 1) if bounded else None, effort)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("effort", "networks"), [("fast", 250), ("medium", 170), ("thorough", 80)])
def test_no_point_inside_has_another_class_in_thousands_of_networks(effort, networks, norm):
    @settings(max_examples=networks)
    @given(st.integers(0, 2**31), PARTS, st.booleans())
    def of_random_networks(seed, parts, bounded):
        is_sound(Random(seed, parts), torch.rand(2, 6).double(), norm, (0, 1) if bounded else None, effort)

    of_random_networks()


def exact_linf(layers, x, label, rival):
    """min ‖d‖_inf with the score of ``rival`` at least that of ``label``: a mixed-integer program (HiGHS)."""
    (w1, b1), (w2, b2) = layers
    big, d, h = 100.0, len(x), len(b1)
    # variables: point (d), hidden (h), on (h), eps
    n = d + 2 * h + 1
    rows, low, high = [], [], []

    def add(entries, lo, hi):
        row = np.zeros(n)
        for index, value in entries:
            row[index] += value
        rows.append(row)
        low.append(lo)
        high.append(hi)

    for i in range(d):
        add([(i, 1), (n - 1, -1)], -np.inf, x[i])
        add([(i, 1), (n - 1, 1)], x[i], np.inf)
    for k in range(h):
        z = [(i, -w1[k, i]) for i in range(d)]
        add([(d + k, 1), *z], b1[k], np.inf)
        add([(d + k, 1), *z, (d + h + k, big)], -np.inf, b1[k] + big)
        add([(d + k, 1), (d + h + k, -big)], -np.inf, 0)
    add([(d + k, w2[rival, k] - w2[label, k]) for k in range(h)], b2[label] - b2[rival], np.inf)
    cost = np.zeros(n)
    cost[-1] = 1
    least = np.concatenate([np.full(d, -5.0), np.zeros(2 * h + 1)])
    most = np.concatenate([np.full(d, 5.0), np.full(h, big), np.ones(h), [10.0]])
    kinds = np.concatenate([np.zeros(d + h), np.ones(h), [0]])
    within: Any = LinearConstraint(np.stack(rows), low, high)  # pyright: ignore[reportArgumentType]
    bounds: Any = Bounds(least, most)  # pyright: ignore[reportArgumentType]
    result = milp(cost, constraints=within, bounds=bounds, integrality=kinds, options={"mip_rel_gap": 0})
    return result.fun if result.success else math.inf


@pytest.mark.parametrize("seed", range(6))
def test_below_and_near_the_exact_mixed_integer_answer(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.rand(1, 3).double()
    label = int(net(x).argmax())
    weights = [value.detach().numpy() for value in net.state_dict().values()]
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    exact = min(exact_linf(layers, x[0].numpy(), label, j) for j in range(3) if j != label)
    found = float(certified_distance(net, x, norm=math.inf, effort="thorough"))
    assert found <= exact * (1 + 1e-6)
    assert found >= 0.5 * min(exact, 5)


@pytest.mark.parametrize("norm", NORMS)
def test_exact_for_affine_scores_of_one_logit_and_of_many(norm):
    net = nn.Linear(5, 4).double()
    x = torch.randn(6, 5).double()
    expected = linear_analysis(net, x, norm=norm).linearized_robustness
    torch.testing.assert_close(certified_distance(net, x, norm=norm), expected, rtol=1e-6, atol=0)
    one = nn.Linear(5, 1).double()
    q = {1: math.inf, 2: 2, math.inf: 1}[norm]
    expected = one(x).abs().flatten() / torch.linalg.vector_norm(one.weight, q)
    torch.testing.assert_close(certified_distance(one, x, norm=norm), expected.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_batches_and_rows_change_nothing_and_the_model_stays(norm):
    net, x = cnn(), images(2)
    before = snapshot(net)
    whole = certified_distance(net, x, norm=norm, effort="fast")
    chunked = certified_distance(net, x[1:], norm=norm, effort="fast", internal_batch_size=100)
    torch.testing.assert_close(chunked, whole[1:], rtol=1e-6, atol=0)
    assert_unchanged(net, before)


def test_tuples_and_extras():
    net, x = TwoInputs(), two_inputs(3)
    shift = torch.rand(3).double()
    radius = certified_distance(net, x, additional_forward_args=(shift,))
    labels = net(*x, shift).argmax(1)
    for i in range(3):
        d = torch.randn(4000, 12).double()
        d = d / d.norm(dim=1, keepdim=True) * radius[i]
        scores = net(x[0][i] + d[:, :4], x[1][i] + d[:, 4:].reshape(-1, 2, 4), shift[i].expand(4000))
        assert (scores.argmax(1) == labels[i]).all()
    assert (radius > 0).all()


def far(x):
    return torch.stack([1 + 1e-14 * x.sum(1), 0 * x[:, 0]], 1)


@pytest.mark.parametrize("norm", NORMS)
def test_infinity_only_where_the_bounds_leave_no_adversarial(norm):
    x = torch.rand(2, 3).double()
    assert certified_distance(far, x, norm=norm, bounds=(0, 1)).isinf().all()
    assert (certified_distance(far, x, norm=norm) <= 1.01e14).all()  # where the border is, and not inf
    assert (certified_distance(far, x, norm=norm) >= 1e11).all()
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    nn.init.zeros_(net[2].weight)  # pyright: ignore
    assert certified_distance(net, x, norm=norm, bounds=(0, 1)).isinf().all()


def test_certified_where_the_gradient_is_zero():
    net = Random(760965380, ["leaky", "relu"])
    is_sound(net, torch.rand(2, 6).double(), 2, None, "fast")  # the second is on a plateau


def test_nothing_is_certified_where_values_are_not_numbers():
    def scores(x):
        hidden = (x + torch.tensor([math.inf, 0, -math.inf])).relu()
        return torch.stack([x.sum(1) + 1, (hidden[:, 0] - hidden[:, 0]).relu() + x[:, 1]], 1)

    with pytest.raises(NotPiecewiseLinear, match="do not give its scores"):
        certified_distance(scores, torch.rand(1, 3).double())


def test_zero_where_the_class_to_leave_is_not_predicted():
    net, x = mlp(), torch.rand(4, 6).double()
    labels = net(x).argmax(1)
    assert (certified_distance(net, x, (labels + 1) % 4) == 0).all()
    assert (certified_distance(net, x, labels) == certified_distance(net, x)).all()


class Unseen(nn.Module):
    """A network with one more operation."""

    def __init__(self, function):
        super().__init__()
        self.net, self.function = mlp(), function

    def forward(self, x):
        return self.net(self.function(x))


def overwritten(x):
    y = x * 2
    view = y.view(-1, 6)
    y.relu_()
    return view


def attention(x):
    return nn.functional.scaled_dot_product_attention(*[x.unsqueeze(2)] * 3).squeeze(2)


def through_a_constant(x):
    y = torch.zeros_like(x)
    y[:, :3] = x[:, :3]
    return y


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (nn.GELU(), "gelu"), (nn.Softmax(1), "softmax"), (nn.LayerNorm(6).double(), "layer_norm"),
        (nn.SiLU(), "silu"), (lambda x: torch.div(x, 0.3, rounding_mode="floor"), "div"),
        (lambda x: x.view(torch.int64).view(torch.float64), "view"),
        (lambda x: x * x, "mul"), (lambda x: (x.unsqueeze(2) @ x.unsqueeze(1)).sum(1), "matmul"),
        (lambda x: x / x.sum(1, keepdim=True), "div"),
        (lambda x: x * (x > 0.5), "gt"), (lambda x: x.sort(1).values, "sort"), (torch.sign, "sign"),
        (lambda x: torch.from_numpy(x.detach().numpy() ** 2), "numpy"), (lambda x: x if x[0, 0] > 9 else -x, "gt"),
        (lambda x: x.data, "data"), (lambda x: torch.cdist(x.unsqueeze(2), x.unsqueeze(2)).sum(1), "cdist"),
        (attention, "scaled_dot_product_attention"),
        (lambda x: nn.functional.threshold(x, 0.5, 0.0), "threshold"), (overwritten, "view"),
        (through_a_constant, "setitem"), (lambda x: torch.ops.aten.gelu(x), "gelu"), (lambda x: x.round(), "round"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(function, name):
    with pytest.raises(NotPiecewiseLinear, match=name):
        certified_distance(Unseen(function).eval(), torch.rand(2, 6).double())


def test_bad_input():
    net, x = mlp(), torch.rand(2, 6).double()
    with pytest.raises(ValueError, match="effort: got 'most'"):
        certified_distance(net, x, effort="most")
    with pytest.raises(ValueError, match="bounds"):
        certified_distance(net, x, bounds=(0, math.inf))
    with pytest.raises(ValueError, match="inputs range"):
        certified_distance(net, x + 1, bounds=(0, 1))
    with pytest.raises(ValueError, match="empty"):
        certified_distance(net, x[:0])
    with pytest.raises(ValueError, match="norm"):
        certified_distance(net, x, norm=3)
    with pytest.raises(ValueError, match="internal_batch_size"):
        certified_distance(net, x, internal_batch_size=0)
    with pytest.raises(ValueError, match=r"training|chance|other samples"):
        certified_distance(cnn().train(), images(2))


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_kw"])
@pytest.mark.parametrize("norm", [2, math.inf])
def test_below_the_attacks_on_real_networks(zoo, mnist, name, norm):
    net, x = zoo.load(name), mnist[0][:1]
    lower = certified_distance(net, x, norm=norm, bounds=(0, 1), effort="fast")
    upper = adversarial_distance(net, x, norm=norm).distance
    assert (lower <= upper).all()
    assert (lower > 0.05 * upper).all()


def test_the_bracket():
    net, x = mlp(), torch.rand(4, 6).double()
    result = adversarial_distance(net, x, bounds=(-5, 5), certify=True)
    assert result.lower_bound is not None
    assert (result.lower_bound <= result.distance).all()
    torch.testing.assert_close(result.lower_bound, certified_distance(net, x, bounds=(-5, 5)))
    assert "lower_bound" in result.to_dataframe()
    assert adversarial_distance(net, x, bounds=(-5, 5)).lower_bound is None
