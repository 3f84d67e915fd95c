"""The callbacks against the same training loop written by hand."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import LipschitzRegularization, LocalLipschitz, RegularizationCallback

# Lightning calls a part of torch's pytree that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

WEIGHT = 0.5
N, BATCH = 22, 6  # the last batch is smaller


class Module(LightningModule):
    """Dropout and batch norm, with a mask that depends on the step alone."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.normalization = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        features = F.max_pool2d(self.normalization(self.convolution(x)).relu(), 2)
        return self.head(self.dropout(features.flatten(1)))

    def training_step(self, batch, batch_idx):
        torch.manual_seed(batch_idx)
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Recorder(Callback):
    """The gradients of each optimizer step and the term logged at each batch."""

    def __init__(self, name="local_lipschitz"):
        self.name, self.gradients, self.terms = name, [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(flat_gradients(pl_module))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.terms.append(trainer.callback_metrics[self.name].item())


class Batches:
    """The same tensors in every epoch, so that a test sees what happened to them."""

    def __init__(self):
        images, labels = torch.rand(N, 1, 4, 4), torch.arange(N) % 3
        self.batches: list[Any] = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def flat_gradients(module):
    return torch.cat([p.grad.flatten().clone() for p in module.parameters() if p.grad is not None])


def fit(module, data, *callbacks: Any, max_epochs: Any = 1, resume: Any = None, **options: Any):
    trainer = Trainer(
        accelerator="cpu", max_epochs=max_epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume)
    return trainer


def by_hand(module, data, *, accumulate=1, dtype=None, scale=1.0, penalty=None):
    """Gradients of each optimizer step, and each batch's term."""
    optimizer = module.configure_optimizers()
    gradients, terms = [], []
    optimizer.zero_grad()
    for index, (images, y) in enumerate(data):
        x = images.clone().requires_grad_()
        torch.manual_seed(index)
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(module(x), y)
        term = WEIGHT * (penalty or squared_gradient)(module, x, y, loss, scale)
        terms.append(term.item())
        ((loss + term) / accumulate * scale).backward()
        if (index + 1) % accumulate == 0 or index + 1 == len(data):
            for p in module.parameters():
                p.grad /= scale
            gradients.append(flat_gradients(module))
            optimizer.step()
            optimizer.zero_grad()
    return gradients, terms


def squared_gradient(module, x, y, loss, scale):
    (g,) = torch.autograd.grad(loss * scale, x, create_graph=True)
    return (g * len(x) / scale).flatten(1).square().sum(1).mean()


DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
RTOL = {"32-true": 1e-5, "bf16-mixed": 2e-2, "16-mixed": 2e-3}


def on_cpu(precision):
    """Scale, scaler and trainer options; Lightning turns 16-mixed into bf16-mixed on a CPU unless given the plugin."""
    scale = 64.0 if precision == "16-mixed" else 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugins = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    return scale, scaler, plugins if precision == "16-mixed" else {"precision": precision}


def twins():
    one, two = Module(), Module()
    two.load_state_dict(one.state_dict())
    return one, two


@pytest.mark.parametrize("accumulate", [1, 3])  # 4 batches: the last window of 3 has one
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_gradients_and_logged_terms_equal_the_loop_written_by_hand(accumulate, precision):
    ours, theirs = twins()
    data, recorder = Batches(), Recorder()
    scale, scaler, options = on_cpu(precision)
    fit(ours, data, LipschitzRegularization(WEIGHT), recorder, accumulate_grad_batches=accumulate, **options)
    gradients, terms = by_hand(theirs, data, accumulate=accumulate, dtype=DTYPES[precision], scale=scale)
    rtol = RTOL[precision]
    assert len(recorder.gradients) == len(gradients) == (4 if accumulate == 1 else 2)
    for mine, reference in zip(recorder.gradients, gradients, strict=True):
        assert (mine - reference).norm() <= rtol * reference.norm()
    assert recorder.terms == pytest.approx(terms, rel=rtol)
    assert scaler.get_scale() == scale  # no step was skipped


def test_the_term_matters_in_that_comparison():
    one, two = twins()
    data = Batches()
    with_term, without = by_hand(one, data)[0][0], by_hand(two, data, penalty=no_penalty)[0][0]
    assert (with_term - without).norm() > 0.05 * without.norm()


def no_penalty(module, x, y, loss, scale):
    return torch.zeros(())


@pytest.mark.parametrize("options", [{}, {"forward": "own"}, {"of": "margin", "norm": float("inf"), "squared": False}])
def test_statistics_are_updated_once_and_everything_is_left_as_it_came(options):
    module, data, plain = Module(), Batches(), Module()
    plain.load_state_dict(module.state_dict())
    seen = []
    step = module.training_step
    module.training_step = lambda batch, batch_idx: (seen.append(batch[0].requires_grad), step(batch, batch_idx))[1]
    fit(module, data, LipschitzRegularization(WEIGHT, **options), limit_train_batches=1)
    fit(plain, data, limit_train_batches=1)
    assert set(seen) == {not options}
    assert module.normalization.num_batches_tracked == 1
    torch.testing.assert_close(module.normalization.running_mean, plain.normalization.running_mean)
    assert module.normalization.track_running_stats
    for x, y in data:
        assert not x.requires_grad
        assert x.grad is None
        assert not y.requires_grad


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_own_forward_equals_the_loop_written_by_hand(precision):
    ours, theirs = twins()
    for module in (ours, theirs):
        module.dropout = nn.Dropout(0.0)
    data, recorder = Batches(), Recorder()
    scale, _, options = on_cpu(precision)
    dtype = DTYPES[precision]
    callback = RegularizationCallback(LocalLipschitz(WEIGHT, of="margin", squared=False))
    assert callback.forward == "own"
    fit(ours, data, callback, recorder, accumulate_grad_batches=3, **options)

    def margin_gradient(module, x, y, loss, scale):
        statistics = {name: value.clone() for name, value in module.normalization.named_buffers()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            z = module(x).float()
        own = z.gather(1, y[:, None]).squeeze(1)
        rival = z.scatter(1, y[:, None], -torch.inf).max(1).values
        (g,) = torch.autograd.grad((own - rival).sum(), x, create_graph=True)
        for name, value in statistics.items():
            setattr(module.normalization, name, value)
        return g.flatten(1).norm(dim=1).mean()

    gradients, terms = by_hand(theirs, data, accumulate=3, dtype=dtype, scale=scale, penalty=margin_gradient)
    rtol = RTOL[precision]
    if precision == "16-mixed":  # before float16 has changed a parameter, the two float32 passes agree
        assert recorder.terms[0] == pytest.approx(terms[0], rel=1e-5)
    for mine, reference in zip(recorder.gradients, gradients, strict=True):
        assert (mine - reference).norm() <= rtol * reference.norm()
    assert recorder.terms == pytest.approx(terms, rel=rtol)


def test_schedule_counts_optimizer_steps_and_zero_is_plain_training():
    ours, theirs = twins()
    data, recorder, steps = Batches(), Recorder(), []

    def schedule(step):
        steps.append(step)
        return 0.0

    fit(ours, data, LipschitzRegularization(WEIGHT, schedule=schedule), recorder, accumulate_grad_batches=2)
    assert steps == [0, 0, 1, 1]
    assert recorder.terms == [0.0] * 4
    gradients, _ = by_hand(theirs, data, accumulate=2, penalty=no_penalty)
    torch.testing.assert_close(recorder.gradients, gradients)


def test_weight_zero_asks_nothing_of_the_batch():
    module, data = changed(step=lambda m, x, y: F.cross_entropy(m(x.float()), y), data=lambda x, y: (x.long(), y))
    fit(module, data, LipschitzRegularization(0.0))


def test_schedule_multiplies_the_weight():
    ours, theirs = twins()
    data, one, two = Batches(), Recorder(), Recorder()
    fit(ours, data, LipschitzRegularization(2 * WEIGHT, schedule=lambda step: 0.25), one)
    fit(theirs, data, LipschitzRegularization(WEIGHT / 2), two)
    torch.testing.assert_close(one.gradients, two.gradients)


def test_unpack_and_several_inputs():
    class TwoInputs(Module):
        def training_step(self, batch, batch_idx):
            torch.manual_seed(batch_idx)
            return F.cross_entropy(self(torch.cat(batch["x"], 3)), batch["y"])

    ours, theirs = twins()
    two = TwoInputs()
    two.load_state_dict(ours.state_dict())
    data, mine, reference = Batches(), Recorder(), Recorder()
    halves = Batches()
    halves.batches = [{"x": [x[..., :1].clone(), x[..., 1:].clone()], "y": y} for x, y in data]
    unpack = LipschitzRegularization(WEIGHT, unpack=lambda batch: (batch["x"], batch["y"]))
    fit(two, halves, unpack, mine)
    fit(theirs, data, LipschitzRegularization(WEIGHT), reference)
    torch.testing.assert_close(mine.gradients, reference.gradients)


def test_the_batch_is_restored_after_an_exception():
    class Fails(Module):
        def training_step(self, batch, batch_idx):
            assert batch[0].requires_grad
            raise RuntimeError("stop")

    data = Batches()
    with pytest.warns(UserWarning, match="does not run"), pytest.raises(RuntimeError, match="stop"):
        fit(Fails(), data, LipschitzRegularization(WEIGHT))
    assert not any(x.requires_grad for x, _ in data)


def test_a_skipped_batch_is_restored():
    module, data = changed(on_train_batch_start=lambda batch, batch_idx: -1)
    fit(module, data, LipschitzRegularization(WEIGHT))
    assert not any(x.requires_grad for x, _ in data)


def test_a_tensor_that_requires_grad_keeps_it():
    data = Batches()
    for x, _ in data:
        x.requires_grad_()
    fit(Module(), data, LipschitzRegularization(WEIGHT))
    assert all(x.requires_grad for x, _ in data)


def test_attention_in_the_training_step():
    class Attention(Module):
        def forward(self, x):
            return self.head(F.scaled_dot_product_attention(x, x, x).flatten(1))

    recorder = Recorder()
    fit(Attention(), Batches(), LipschitzRegularization(WEIGHT), recorder)
    assert recorder.terms[0] > 0


def test_an_overflowing_step_is_left_to_the_gradient_scaler():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    module = Module()
    before = module.head.weight.detach().clone()
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    fit(module, Batches(), LipschitzRegularization(WEIGHT), plugins=plugins, limit_train_batches=1)
    assert torch.equal(module.head.weight, before)
    assert scaler.get_scale() < 2.0**40


def changed(step=None, data=None, **attributes):
    module, batches = Module(), Batches()
    if step:
        module.training_step = lambda batch, batch_idx: step(module, *batch)
    if data:
        batches.batches = [data(*batch) for batch in batches]
    for name, value in attributes.items():
        setattr(module, name, value)
    return module, batches


@pytest.mark.parametrize(
    ("module", "data", "error", "message"),
    [
        (*changed(data=lambda x, y: {"x": x, "y": y}), TypeError, "batch: got dict, expected .*unpack="),
        (*changed(data=lambda x, y: (x,)), TypeError, "batch: got tuple"),
        (*changed(data=lambda x, y: (x.long(), y)), TypeError, "batch inputs: got dtype torch.int64"),
        (
            *changed(step=lambda m, x, y: F.cross_entropy(m(x.detach()), y)),
            ValueError,
            "loss: does not depend on the inputs.*forward='own'",
        ),
        (*changed(data=lambda x, y: (x * torch.nan, y)), ValueError, "local_lipschitz: the term is nan at step 0"),
        (*changed(head=torch.compile(nn.Flatten())), ValueError, "model: is compiled.*forward=.own."),
    ],
)
def test_what_cannot_work_says_why(module, data, error, message):
    with pytest.raises(error, match=message):
        fit(module, data, LipschitzRegularization(WEIGHT))
    batches = [batch for batch in data if isinstance(batch, tuple)]
    assert not any(batch[0].requires_grad for batch in batches)


def test_sharded_strategies_are_refused():
    from lightning.pytorch.strategies import FSDPStrategy

    trainer = SimpleNamespace(strategy=FSDPStrategy(), callbacks=[])
    with pytest.raises(ValueError, match="strategy: got FSDPStrategy"):
        LipschitzRegularization(WEIGHT).setup(trainer, Module(), "fit")  # pyright: ignore[reportArgumentType]


def test_several_callbacks_add_their_terms_and_do_not_share_a_log_key():
    ours, theirs = twins()
    data, recorder, names = Batches(), Recorder(), []
    vars(ours)["on_train_batch_end"] = lambda *_: names.extend(ours.trainer.callback_metrics)
    callbacks = [LipschitzRegularization(WEIGHT, norm=1), LipschitzRegularization(WEIGHT)]
    fit(ours, data, *callbacks, recorder)

    def both(module, x, y, loss, scale):
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        g = (g * len(x)).flatten(1)
        return g.square().sum(1).mean() + g.abs().amax(1).square().mean()

    gradients, _ = by_hand(theirs, data, penalty=both)
    torch.testing.assert_close(recorder.gradients, gradients)
    norms = ["local_lipschitz", "local_lipschitz_gradient_norm"]
    assert sorted(set(names)) == sorted([*norms, "local_lipschitz_2", "local_lipschitz_2_gradient_norm"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": -1.0}, ValueError, "weight: got -1.0"),
        ({"weight": float("nan")}, ValueError, "weight: got nan"),
        ({"weight": 1.0, "forward": "mine"}, ValueError, "forward: got 'mine'"),
        ({"weight": 1.0, "forward": "shared", "of": "score"}, ValueError, "forward: got 'shared', but local_lipschitz"),
    ],
)
def test_wrong_options_are_named(options: Any, error, message):
    with pytest.raises(error, match=message):
        LipschitzRegularization(**options)


def test_wrong_regularizers_schedules_and_unpackers_are_named():
    with pytest.raises(TypeError, match="regularizer: got float, expected a Regularizer"):
        RegularizationCallback(1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="schedule: got -1"):
        fit(Module(), Batches(), LipschitzRegularization(1.0, schedule=lambda step: -1))
    with pytest.raises(TypeError, match="unpack: returned Tensor"):
        fit(Module(), Batches(), LipschitzRegularization(1.0, unpack=lambda batch: batch[0]))


def test_lightning_is_imported_only_for_its_callbacks():
    code = """
import sys
import captum_alignment.training as training
assert not any(name.partition(".")[0] in ("lightning", "pytorch_lightning") for name in sys.modules)
sys.modules["lightning"] = sys.modules["lightning.pytorch"] = None
try:
    training.LipschitzRegularization(1e-3)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'captum-alignment[study]'" in done.stdout
