import functools
import random

import foolbox
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from captum_alignment._core._arguments import Shared
from captum_alignment._core._gradients import checked_inputs

X = torch.linspace(-1, 1.5, 24).reshape(8, 3)


def check(model, x=X, args=None):
    checked_inputs(model, x, args)


class Keeps:
    """An object that holds a module in a dictionary."""

    def __init__(self, net):
        self.parts = {"net": [net]}

    def __call__(self, x):
        return self.parts["net"][0](x)


GLOBAL = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))


def through_a_global(x):
    return GLOBAL(x)


@pytest.mark.parametrize(
    ("layer", "on"),
    [
        (nn.BatchNorm1d(3), "the other samples"),
        (nn.BatchNorm1d(3, track_running_stats=False).eval(), "the other samples"),
        (nn.Dropout(0.2), "chance"),
        (StochasticDepth(0.1, "batch"), "chance"),
        (nn.RReLU(), "chance"),
    ],
)
def test_the_module_is_named(layer, on):
    net = nn.Sequential(nn.Linear(3, 3), layer)
    for model in (net, net.forward, lambda x: 2 * net(x), functools.partial(net), Keeps(net)):
        with pytest.raises(ValueError, match=rf"'1' is in training mode.*depend on {on}; call model.eval"):
            check(model)


def test_one_sample_alone_has_company_too():
    with pytest.raises(ValueError, match="BatchNorm1d '0' is in training mode"):
        check(nn.Sequential(nn.BatchNorm1d(3)), X[:1])


def test_through_foolbox_and_globals():
    with pytest.warns(UserWarning, match="training mode"):
        model = foolbox.PyTorchModel(nn.Sequential(nn.BatchNorm1d(3)), bounds=(0, 1), device="cpu")
    with pytest.raises(ValueError, match="BatchNorm1d '0'"):
        check(model)
    GLOBAL.train()
    with pytest.raises(ValueError, match="Dropout '1'"):
        check(through_a_global)
    GLOBAL.eval()
    check(through_a_global)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)

    def forward(self, x):
        x = F.pad(x, (0, 1)).unsqueeze(1).expand(-1, 3, -1)
        return self.attention(x, x, x)[0].mean(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 3, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x):
        return self.lstm(x.unsqueeze(2))[0][:, -1]


def test_dropout_inside_attention_and_recurrent_layers():
    for net, name in ((Attention(), "MultiheadAttention 'attention'"), (Recurrent(), "LSTM 'lstm'")):
        with pytest.raises(ValueError, match=name):
            check(net)
        check(net.eval())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(x, 0.5),
        lambda x: x + 0.01 * torch.randn_like(x),
        lambda x: x * (random.random() > 0.1),
        lambda x: x * (torch.rand(()) > 0.1),
    ],
)
def test_chance_without_a_module(function):
    with pytest.raises(ValueError, match=r"depend on chance \(two forward passes differ\)"):
        check(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: x * len(x),
        lambda x: x / x.abs().max(),
    ],
)
def test_company_without_a_module(function):
    with pytest.raises(ValueError, match="depend on the other samples"):
        check(function)


def seeded(x):
    torch.manual_seed(3)
    return x + torch.randn(3)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.0), nn.Unflatten(1, (1, 3)), nn.InstanceNorm1d(1), nn.Flatten()),
        nn.BatchNorm1d(3).eval(),
        torch.relu,
        seeded,  # always the same noise
        lambda x: x + 0 * torch.rand(()),  # draws, but does not depend on it
        lambda x: x.reshape(8, 3) * 2,  # takes batches of 8 alone
        lambda x: x.masked_fill(x > 0.5, -torch.inf),
    ],
)
def test_no_false_alarm(model):
    check(model)


def test_names_of_attributes_are_no_globals():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.GLOBAL = nn.Linear(3, 3)

        def forward(self, x):
            return self.GLOBAL(x)

    net = Net()
    GLOBAL.train()
    check(lambda x: net.GLOBAL(x))
    GLOBAL.eval()


def test_the_global_random_numbers_of_a_quiet_model_stay():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check(torch.relu)
    assert torch.equal(torch.rand(3), expected)


def test_arguments_are_cut_with_their_samples():
    mask, table = torch.arange(8.0).unsqueeze(1), torch.rand(3, 3)
    check(lambda x, mask, table: (x * mask) @ table, args=(mask, Shared(table)))
    with pytest.raises(ValueError, match=r"additional_forward_args: entry 1 has shape .* for 8 samples.*Shared"):
        check(lambda x, mask, table: (x * mask) @ table, args=(mask, table))


def test_company_is_seen_where_the_first_sample_is_in_a_flat_part():
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^forward_func: .*the other samples"):
        checked_inputs(lambda x: torch.cat([x - x.mean(0), -x], 1).relu(), x)
