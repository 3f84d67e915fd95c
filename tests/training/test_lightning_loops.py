"""The Lightning callback under manual optimization, with several optimizers, and with compiled modules."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import (
    JacobianRegularizer,
    LipschitzRegularization,
    RegularizationCallback,
)
from tests.training.test_lightning import WEIGHT, Batches, Module, Recorder, by_hand, fit, flat_gradients, on_cpu

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


class Manual(Module):
    """The same step with its own calls of backward: a loss of the head alone, and before or after it the real one."""

    def __init__(self, index=0):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(3, 1)
        self.index = index

    def training_step(self, batch, batch_idx):  # pyright: ignore[reportIncompatibleMethodOverride]
        main, second = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        for call in range(2):
            optimizer = main if call == self.index else second
            optimizer.zero_grad()
            if call == self.index:
                loss = super().training_step(batch, batch_idx)
            else:
                loss = self.other(torch.ones(1, 3)).square().sum()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        own = [*self.convolution.parameters(), *self.normalization.parameters(), *self.head.parameters()]
        return torch.optim.SGD(own, lr=0.01), torch.optim.SGD(self.other.parameters(), lr=0.01)


class MainGradients(Recorder):
    """Gradients of the main loss alone, without those of ``other``."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if optimizer is trainer.optimizers[0]:
            self.gradients.append(flat_gradients(nn.ModuleList([*pl_module.children()][:-1])))


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("index", [0, 1])
def test_the_term_joins_the_chosen_backward_of_a_manual_step(index, precision):
    ours, theirs = Manual(index), Module()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    scale, _, options = on_cpu(precision)
    data, recorder = Batches(), MainGradients()
    fit(ours, data, LipschitzRegularization(WEIGHT, backward=index), recorder, **options)
    dtype = torch.float16 if precision == "16-mixed" else None
    gradients, terms = by_hand(theirs, data, dtype=dtype, scale=scale)
    rtol = 2e-3 if dtype else 1e-5
    for mine, reference in zip(recorder.gradients, gradients, strict=True):
        assert (mine - reference).norm() <= rtol * reference.norm()
    assert recorder.terms == pytest.approx(terms, rel=rtol)
    assert not any(x.requires_grad for x, _ in data)


def test_a_backward_that_never_comes_is_named():
    with pytest.raises(ValueError, match=r"backward: got 2, counted from 0, but training_step called .* 2 times"):
        fit(Manual(), Batches(), LipschitzRegularization(WEIGHT, backward=2))
    with pytest.raises(ValueError, match="backward: got -1, expected an integer of at least 0"):
        LipschitzRegularization(WEIGHT, backward=-1)


class WithCompiledNet(Module):
    def __init__(self, compiled):
        super().__init__()
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
        self.net = torch.compile(net, backend="aot_eager") if compiled else net

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("method", ["double-backward", "finite-difference"])
def test_compiled_modules_train_as_plain_ones(method):
    recorders = []
    for compiled in (False, True):
        torch.manual_seed(0)
        module = WithCompiledNet(compiled)
        torch.manual_seed(1)
        recorders.append(Recorder())
        callback = LipschitzRegularization(WEIGHT, method=method, forward="own")
        fit(module, Batches(), callback, recorders[-1])
    torch.testing.assert_close(recorders[0].gradients, recorders[1].gradients)
    assert recorders[0].terms == pytest.approx(recorders[1].terms)
    assert min(recorders[0].terms) > 0


def test_finite_differences_choose_their_own_forward():
    assert LipschitzRegularization(WEIGHT, method="finite-difference").forward == "own"
    with pytest.raises(ValueError, match="forward: got 'shared'"):
        LipschitzRegularization(WEIGHT, method="finite-difference", forward="shared")


@pytest.mark.parametrize("forward", ["shared", "own"])
def test_the_mean_gradient_norm_is_logged(forward):
    module, data, norms = Module(), Batches(), []
    module.dropout = nn.Dropout(0.0)
    vars(module)["on_train_batch_end"] = lambda *_: norms.append(
        module.trainer.callback_metrics["local_lipschitz_gradient_norm"].item()
    )
    expected = Module()
    expected.load_state_dict(module.state_dict())
    expected.dropout = nn.Dropout(0.0)
    fit(module, data, LipschitzRegularization(WEIGHT, forward=forward), limit_train_batches=1)
    x = data.batches[0][0].clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(expected(x), data.batches[0][1], reduction="sum"), x)
    assert norms == pytest.approx([g.flatten(1).norm(dim=1).mean().item()], rel=1e-4)


def test_any_regularizer_runs_on_its_own_forward():
    callback = RegularizationCallback(JacobianRegularizer(WEIGHT))
    assert callback.forward == "own"
    module, names = Module(), []
    vars(module)["on_train_batch_end"] = lambda *_: names.extend(module.trainer.callback_metrics)
    fit(module, Batches(), callback, limit_train_batches=1)
    assert names == ["jacobian", "jacobian_gradient_norm"]
