"""The configured object: its own forward pass, what it leaves untouched, and where it refuses."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import LocalLipschitz, Regularizer, input_gradient_penalty


class Net(nn.Module):
    def __init__(self, dropout=0.5):
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(1, 3, 3, padding=1).double(), nn.BatchNorm2d(3).double()
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(48, 4).double()

    def forward(self, x):
        features = self.normalization(self.convolution(x)).relu()
        return self.head(self.dropout(features.flatten(1)))


def batch(n=6):
    return torch.rand(n, 1, 4, 4, dtype=torch.float64), torch.arange(n) % 4


@pytest.mark.parametrize("of", ["loss", "score", "margin"])
def test_term_is_weight_times_mean_penalty(of):
    model = Net().eval()
    inputs, target = batch()
    term = LocalLipschitz(0.3, of=of, norm=math.inf, squared=False)(model, inputs, target)
    leaf = inputs.clone().requires_grad_()
    penalties = input_gradient_penalty(model(leaf), leaf, target, of=of, norm=math.inf, squared=False)
    torch.testing.assert_close(term, 0.3 * penalties.mean())
    gradients = [torch.autograd.grad(t, model.convolution.weight) for t in (term, 0.3 * penalties.mean())]
    torch.testing.assert_close(*gradients)


def test_weight_does_not_depend_on_the_batch_size():
    model, regularizer = Net().eval(), LocalLipschitz(2.0)
    inputs, target = batch()
    once, twice = regularizer(model, inputs, target), regularizer(model, inputs.repeat(2, 1, 1, 1), target.repeat(2))
    torch.testing.assert_close(once, twice)


def test_term_from_a_loss_equals_the_term_of_its_own_forward():
    model, regularizer = Net().eval(), LocalLipschitz(0.7, norm=1)
    inputs, target = batch()
    leaf = inputs.clone().requires_grad_()
    loss = 128.0 * F.cross_entropy(model(leaf), target)
    shared, own = regularizer.from_loss(loss, leaf, scale=128.0), regularizer(model, inputs, target)
    torch.testing.assert_close(shared, own)
    gradients = [torch.autograd.grad(term, list(model.parameters()), materialize_grads=True) for term in (shared, own)]
    torch.testing.assert_close(*gradients)


def test_model_and_tensors_leave_as_they_came():
    model = Net().train()
    inputs, target = batch()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    LocalLipschitz(1.0)(model, inputs, target).backward()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert model.normalization.track_running_stats
    assert not inputs.requires_grad
    assert inputs.grad is None


def test_batch_norm_statistics_are_restored_after_an_error():
    model = Net().train()
    with pytest.raises(RuntimeError):
        LocalLipschitz(1.0)(model, torch.rand(2, 1, 9, 9, dtype=torch.float64), 0)
    assert model.normalization.track_running_stats


def test_train_mode_batch_norm_normalises_by_the_batch():
    model = Net(dropout=0.0).train()
    inputs, target = batch()
    term = LocalLipschitz(1.0)(model, inputs, target)
    leaf = inputs.clone().requires_grad_()
    torch.testing.assert_close(term, input_gradient_penalty(model(leaf), leaf, target).mean())


def test_value_alone_where_gradients_are_off():
    model, regularizer = Net().eval(), LocalLipschitz(1.0)
    inputs, target = batch()
    expected = regularizer(model, inputs, target).detach()
    with torch.no_grad():
        value = regularizer(model, inputs, target)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)
    with torch.inference_mode():
        value = regularizer(model, inputs.clone(), target.clone())
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)


def test_extras_reach_the_penalty_outside_inference_mode():
    class Weighted(Regularizer):
        def penalty(self, graph, target, *extras):
            (gradient,) = graph.gradient(lambda scores: scores.sum(1))
            return (gradient * extras[0]).flatten(1).sum(1)

    model = Net().eval()
    inputs, target = batch()
    maps = torch.rand_like(inputs)
    expected = Weighted(1.0)(model, inputs, target, maps).detach()
    with torch.inference_mode():
        torch.testing.assert_close(Weighted(1.0)(model, inputs, target, maps.clone()), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_forward_with_float32_penalty(dtype):
    model = Net().float().eval()
    inputs, target = batch()
    regularizer = LocalLipschitz(1.0)
    exact = regularizer(model, inputs.float(), target)
    with torch.autocast("cpu", dtype=dtype):
        term = regularizer(model, inputs.float(), target)
    assert term.dtype == torch.float32
    assert term != exact
    torch.testing.assert_close(term, exact, rtol=0.05, atol=0)


def test_penalties_run_outside_autocast():
    class Product(Regularizer):
        def penalty(self, graph, target, *extras):
            return (graph.scores @ graph.scores.T).diagonal()

    inputs, target = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Product(1.0)(Net().float().eval(), inputs.float(), target).dtype == torch.float32


def test_half_gradients_of_a_scaled_loss_do_not_underflow():
    x = torch.ones(1, 4, dtype=torch.float16, requires_grad=True)
    loss = (x * 2**-10).sum()  # 2**16 times a loss whose gradient, 2**-26, float16 cannot hold
    assert LocalLipschitz(1.0).from_loss(loss, x, scale=2.0**16).item() == 4 * 2.0**-52


def test_attention_is_differentiated_twice():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(F.scaled_dot_product_attention(x, x, x).mean((1, 2)))

    model = Attention()
    LocalLipschitz(1.0)(model, torch.rand(2, 1, 4, 8), 0).backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.abs().max() > 0


def test_wrapped_models_are_run_unwrapped_or_refused():
    inputs, target = batch()
    model = Net().eval()
    LocalLipschitz(1.0)(torch.compile(model, backend="aot_eager"), inputs, target).backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.abs().max() > 0
    with pytest.raises(TypeError, match="model: got DataParallel"):
        LocalLipschitz(1.0)(nn.DataParallel(model), inputs, target)


@pytest.mark.parametrize(
    ("weight", "error"), [(-1.0, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError)]
)
def test_weights_that_make_no_sense(weight, error):
    with pytest.raises(error, match="weight: got"):
        LocalLipschitz(weight)


def test_wrong_arguments_are_named():
    inputs, target = batch()
    with pytest.raises(ValueError, match="of: got 'logit'"):
        LocalLipschitz(1.0, of="logit")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="norm: got 3"):
        LocalLipschitz(1.0, norm=3)
    with pytest.raises(TypeError, match=r"inputs: got dtype torch.int64"):
        LocalLipschitz(1.0)(Net(), inputs.long(), target)
    with pytest.raises(ValueError, match="empty batch"):
        LocalLipschitz(1.0)(Net(), inputs[:0], target[:0])
    with pytest.raises(ValueError, match="NaN"):
        LocalLipschitz(1.0)(Net(), inputs * math.nan, target)
    with pytest.raises(TypeError, match="needs more than the gradient of the loss"):
        LocalLipschitz(1.0, of="score").from_loss(inputs.sum(), inputs)
