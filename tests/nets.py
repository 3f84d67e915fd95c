"""Small networks and inputs that the tests share."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn


def mlp(k=4, bias=True, dtype=torch.float64, d=6):
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(d, 24, bias=bias), nn.ReLU(), nn.Linear(24, 16, bias=bias), nn.ReLU(),
        nn.Linear(16, k, bias=bias),
    )  # fmt: skip
    return net.to(dtype).eval()


def cnn(k=5, dtype=torch.float64, channels=2):
    net = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, k),
    )  # fmt: skip
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return net.to(dtype).eval()


class TwoInputs(nn.Module):
    """Two inputs of different shape, one per-sample extra and one shared extra."""

    def __init__(self, k=3, dtype=torch.float64):
        super().__init__()
        self.a = nn.Linear(4, 10)
        self.b = nn.Conv1d(2, 3, 2)
        self.out = nn.Linear(10 + 9, k)
        self.to(dtype).eval()

    def forward(self, a: Tensor, b: Tensor, shift: Tensor | None = None, scale: float = 1.0) -> Tensor:
        hidden = torch.cat([self.a(a), self.b(b).flatten(1)], 1).relu()
        scores = self.out(hidden) * scale
        return scores if shift is None else scores + shift.unsqueeze(1) * hidden[:, : scores.shape[1]]


def two_inputs(n=7, dtype=torch.float64):
    return torch.rand(n, 4, dtype=dtype), torch.rand(n, 2, 4, dtype=dtype)


def images(n=8, dtype=torch.float64, channels=2):
    return torch.rand(n, channels, 8, 8, dtype=dtype)


def snapshot(module: nn.Module):
    """Everything about a module that a call must leave as it was."""
    return (
        {name: value.clone() for name, value in module.state_dict().items()},
        {name: (p.requires_grad, None if p.grad is None else p.grad.clone()) for name, p in module.named_parameters()},
        {name: (m.training, len(m._forward_hooks), len(m._backward_hooks)) for name, m in module.named_modules()},
    )


def assert_unchanged(module: nn.Module, before) -> None:
    torch.testing.assert_close(snapshot(module)[0], before[0], rtol=0, atol=0)
    for (now_flag, now_grad), (flag, grad) in zip(snapshot(module)[1].values(), before[1].values(), strict=True):
        assert now_flag == flag
        assert (now_grad is None) == (grad is None)
        if grad is not None:
            torch.testing.assert_close(now_grad, grad, rtol=0, atol=0)
    assert snapshot(module)[2] == before[2]


def count_forward_passes(module: nn.Module, calls: list[Any], name: str = "forward") -> Any:
    """Append ``name`` to ``calls`` for each forward pass of ``module``, those of the check of two samples apart."""

    def count(*_: Any) -> None:
        if not any(frame.function == "check_repeatable" for frame in inspect.stack(0)):
            calls.append(name)

    return module.register_forward_hook(count)
