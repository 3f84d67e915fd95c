"""Every function that is known to be piecewise linear: its values, its spread and its gradient, at random points."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment._core import _piecewise
from captum_alignment._core._piecewise import NotPiecewiseLinear
from captum_alignment._core._piecewise_trace import trace


def edited(x):
    y = x.clone()
    y[:, 1] = 0.5
    y[:, :, 1:3, ::2] = x[:, :, :2, 1::2] * 2
    y[..., drawn(6) < -99] = 7
    return y


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


KNOWN = {
    "add alpha": lambda x: torch.add(x, x.flip(2), alpha=-2) - 1,
    "rsub": lambda x: torch.rsub(x, 3.0, alpha=2) + (1 - x),
    "negative factor": lambda x: x * -2 / torch.tensor([-3.0, 2.0]).view(2, 1, 1),
    "type_as": lambda x: x - torch.ones(2, 1, 1).type_as(x),
    "sum and mean": lambda x: x.sum((2, 3), keepdim=True) - x.mean(1, keepdim=True, dtype=torch.float64),
    "average pool": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average pool divided by -2": lambda x: F.avg_pool2d(x, 3, 1, 1, divisor_override=-2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (2, 5)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool, ceil": lambda x: F.max_pool2d(x, 2, 3, ceil_mode=True),
    "max pool, dilated": lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 1), (1, 2)),
    "max pool of one dimension": lambda x: F.max_pool1d(x.flatten(2), 5, 3, 2),
    "amax": lambda x: x.amax((1, 2), keepdim=True) - x.max(),
    "leaky": lambda x: F.leaky_relu(x, -0.5) + F.leaky_relu(x, 1.7, True),
    "prelu": lambda x: F.prelu(x, drawn(2)),
    "clips": lambda x: x.clamp(max=0.3).clamp(min=-float("inf")) + x.clamp(min=drawn(6)),
    "hard": lambda x: F.hardsigmoid(x * 4) + F.hardtanh(x, -0.2, 0.6) + F.relu6(x * 9) + F.softshrink(x, 0.3),
    "threshold": lambda x: F.threshold(x, 0.4, 0.4),
    "extrema": lambda x: torch.minimum(x, x.flip(3)) - torch.maximum(x.sum(1, keepdim=True), drawn(6)) + x.abs(),
    "convolution": lambda x: F.conv2d(x, drawn(4, 1, 3, 3), drawn(4), 2, 2, 2, 2),
    "transposed": lambda x: F.conv_transpose2d(x, drawn(2, 3, 3, 3), drawn(3), 2, 1, 1),
    "matmul": lambda x: drawn(5, 6) @ x @ drawn(6, 4),
    "einsum": lambda x: torch.einsum("nchw,wk->nhkc", x, drawn(6, 3)),
    "addmm": lambda x: torch.addmm(x.flatten(1)[:, :4], x.flatten(1), drawn(72, 4), beta=-2, alpha=0.5),
    "baddbmm": lambda x: torch.baddbmm(drawn(2, 6, 3), x[0], drawn(2, 6, 3)),
    "where": lambda x: torch.where(drawn(6) > 0, x, -x) + torch.where(drawn(6) > 0, 3.0, x),
    "masked_fill": lambda x: x.masked_fill(drawn(6) > 0, -2.0),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(
        x, (12, 12), mode="bilinear", align_corners=True
    ) + F.interpolate(x, (12, 12), mode="area"),
    "padding": lambda x: F.pad(x, (1, 2, -1, 0), value=0.5),
    "joined": lambda x: torch.cat([x, torch.ones(1, 1, 6, 6), *x.split(1, 1)], 1).roll(1, 2),
    "in place": lambda x: (x * 1).mul_(2).clamp_(max=0.5).relu_().add_(x),
    "edited": edited,
    "batch norm": nn.BatchNorm2d(2).double().eval(),
    "dropout": lambda x: F.dropout2d(x, 0.5, False),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_function(name):
    x = drawn(1, 2, 6, 6)
    last = drawn(KNOWN[name](x).numel(), 3)

    def scores(x):
        return KNOWN[name](x).reshape(len(x), -1) @ last

    network = trace(scores, (x,))
    for scale in (0.3, 3):
        point = scale * torch.randn_like(x)
        values = network.values((point,))
        torch.testing.assert_close(values[network.output], scores(point.clone()))
    for node in network.nodes:
        if node.affine is None or not node.parents:
            continue
        shapes = [network.nodes[p].shape for p in node.parents]
        at, by = ([torch.randn(shape).double() for shape in shapes] for _ in range(2))
        moved = node.affine(*(a + b for a, b in zip(at, by, strict=True))) - node.affine(*at)
        assert (moved.abs() <= node.affine.spread([b.abs() for b in by]) + 1e-9).all()
        g = torch.randn(3, *node.shape).double()
        found = sum((part * b).reshape(3, -1).sum(1) for part, b in zip(node.affine.pull(g), by, strict=True))
        torch.testing.assert_close(found, (g * moved).reshape(3, -1).sum(1))


@torch.no_grad()
def product_by_name(x):
    return torch.mul(x * 2, other=x * 3)


REFUSED = {
    "mul": product_by_name, "einsum": lambda x: torch.einsum("nchw,nchw->nch", x, x), "matmul": lambda x: torch.addmm(
        x[0, 0], x[0, 0], x[0, 1]
    ), "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "div": lambda x: torch.div(x, 2, rounding_mode="trunc"), "divisor": lambda x: x / 0, "factor": lambda x: x * 1e999,
    "floordiv": lambda x: x // 0.5, "unsqueeze": lambda x: (x * 1).unsqueeze_(0), "rpow": lambda x: 2**x,
    "rdiv": lambda x: 1 / (x + 9), "sum": lambda x: x.detach().sum(1, dtype=torch.int64).double(),
    "to": lambda x: x.detach().to(torch.int64).double(), "minimum": lambda x: x.clamp(drawn(6) + 2, drawn(6)),
    "max": lambda x: x.max(1).values, "float": lambda x: x if float(x.detach().mean()) < 9 else -x,
    "outside": lambda x: x + nn.Parameter(x.detach()) * 1e-9, "clamp": lambda x: x.clamp(min=x.flip(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_whose_arguments_make_it_another(name):
    x = drawn(1, 2, 6, 6)
    with pytest.raises(NotPiecewiseLinear, match=name):
        trace(lambda x: REFUSED[name](x).reshape(1, -1), (x,))


def test_a_device_without_float64_is_named(monkeypatch):
    monkeypatch.setattr(_piecewise, "widest_dtype", lambda device: torch.float32)
    with pytest.raises(NotPiecewiseLinear, match=r"inputs: are on cpu, which has no float64, .*; move the model"):
        trace(nn.Linear(4, 3), (torch.rand(1, 4),))
