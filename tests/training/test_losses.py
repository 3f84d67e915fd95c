"""Losses that are no plain mean over the batch: the term against one written sample by sample in float64."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import LipschitzRegularization
from tests.training.test_lightning import Batches, fit, flat_gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

WEIGHT, N, K = 0.3, 8, 3
CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)


def data():
    generator = torch.Generator().manual_seed(0)
    batches = Batches()
    images = torch.rand(N, 1, 4, 4, dtype=torch.float64, generator=generator)
    batches.batches = [(images, torch.tensor([0, 1, 1, 2, -100, 0, -100, 1]))]
    return batches


class Net(LightningModule):
    """A step whose loss is ``self.loss(scores, labels)``."""

    def __init__(self, loss, dropout=0.0, manual=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, K))
        self.double()
        self.loss, self.logged, self.found = loss, [], torch.zeros(())
        self.automatic_optimization = not manual

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = self.loss(self(batch[0]), batch[1])
        if not self.automatic_optimization:
            self.manual_backward(loss)
            self.found = flat_gradients(self)
        self.logged.append(loss)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.found = flat_gradients(self)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trained(loss, *, batches=None, manual=False, dropout=0.0, **options):
    module = Net(loss, dropout, manual)
    fit(module, batches or data(), LipschitzRegularization(WEIGHT, **options), limit_train_batches=1)
    return module


def literal(loss, each, batches=None):
    """Gradients of ``loss`` plus the weight times the mean of ‖∇ₓ each‖², one sample at a time."""
    module = Net(loss)
    images, labels = (batches or data()).batches[0]
    penalties = []
    for x, y in zip(images, labels, strict=True):
        leaf = x.clone().requires_grad_()
        value = each(module(leaf[None])[0], y)
        gradient = torch.autograd.grad(value, leaf, create_graph=True)[0] if value.requires_grad else torch.zeros(())
        penalties.append((gradient * gradient).sum())
    (loss(module(images), labels) + WEIGHT * sum(penalties) / len(images)).backward()
    return flat_gradients(module)


def one(z, y):
    return -z.log_softmax(0)[y] if y >= 0 else torch.zeros(())


def focal(z, y):
    return (1 - z.softmax(0)[max(y, 0)]) ** 2 * one(z, y)


def focal_batch(z, y):
    return sum(focal(a, b) for a, b in zip(z, y, strict=True)) / (y == 1).sum()


LOSSES: dict[str, Any] = {
    "sum": (lambda z, y: F.cross_entropy(z, y, reduction="sum"), one, "sum"),
    "ignored labels": (F.cross_entropy, one, lambda batch: (batch[1] >= 0).sum()),
    "class weights": (
        lambda z, y: F.cross_entropy(z, y, CLASS_WEIGHTS),
        lambda z, y: one(z, y) * CLASS_WEIGHTS[max(y, 0)],
        lambda batch: CLASS_WEIGHTS[batch[1][batch[1] >= 0]].sum(),
    ),
    "class weights, undone": (
        lambda z, y: F.cross_entropy(z, y, CLASS_WEIGHTS),
        one,
        lambda batch: CLASS_WEIGHTS[batch[1][batch[1] >= 0]].sum() / CLASS_WEIGHTS[batch[1].clamp(min=0)],
    ),
    "focal over positives": (focal_batch, focal, lambda batch: (batch[1] == 1).sum()),
}


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_with_its_count_the_term_is_that_of_the_loss_of_each_sample(name, manual):
    loss, each, reduction = LOSSES[name]
    found = trained(loss, reduction=reduction, manual=manual).found
    torch.testing.assert_close(found, literal(loss, each), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("name", [name for name in LOSSES if "undone" not in name])
def test_without_it_the_loss_is_told_from_a_mean(name, manual):
    with pytest.raises((ValueError, UserWarning), match="reduction: got 'mean', but 4 of 8 samples"):
        trained(LOSSES[name][0], manual=manual)


def test_a_sum_is_recognised_and_a_mean_taken_for_one_is_not_believed():
    with pytest.raises(ValueError, match=r"2 times as large \(the loss looks like a sum\)"):
        trained(LOSSES["sum"][0])
    with pytest.raises(ValueError, match=r"reduction: got 'sum', but .* 0.5 times as large"):
        trained(plain_mean, reduction="sum")
    with pytest.raises(ValueError, match="reduction: got 'average', expected 'mean', 'sum' or a function"):
        LipschitzRegularization(1.0, reduction="average")  # pyright: ignore[reportArgumentType]


def plain_mean(z, y):
    return F.cross_entropy(z, y.clamp(min=0))


ENDS = {
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "norm": lambda loss: torch.stack([loss, loss]).norm(),
    "logsumexp": lambda loss: torch.stack([loss, -loss]).logsumexp(0),
    "sigmoid": torch.sigmoid,
    "unbind": lambda loss: torch.stack([loss, loss]).unbind()[0],
}


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_the_loss_is_not_written_to(end, manual):
    def loss(z, y):
        return ENDS[end](plain_mean(z, y))

    module = trained(loss, manual=manual, check=False)
    reference, (images, labels) = Net(loss), data().batches[0]
    x = images.clone().requires_grad_()
    value = loss(reference(x), labels)
    (g,) = torch.autograd.grad(value, x, create_graph=True)
    (value + WEIGHT * (N * g).square().sum() / N).backward()
    torch.testing.assert_close(module.found, flat_gradients(reference), rtol=1e-10, atol=1e-13)
    assert len(module.logged) == 1
    assert module.logged[0].item() == value.item()


def test_a_loss_divided_to_accumulate_counts_as_documented():
    def quarter(z, y):
        return plain_mean(z, y) / 4

    divided = trained(quarter, manual=True, reduction=lambda batch: 4 * len(batch[0]), schedule=lambda _: 0.25)
    whole = trained(plain_mean, manual=True)
    torch.testing.assert_close(4 * divided.found, whole.found, rtol=1e-10, atol=1e-13)


def test_half_a_batch_without_a_label_is_left_to_the_next_batch():
    batches = data()
    (images, labels), ignored = batches.batches[0], torch.full((N // 2,), -100)
    batches.batches = [(images, torch.cat([ignored, labels[: N // 2]])), (images, labels)]

    def run(count):
        fit(module, batches, LipschitzRegularization(WEIGHT), limit_train_batches=count)

    module = Net(F.cross_entropy)
    run(1)
    assert module.found.isfinite().all()
    with pytest.warns(UserWarning, match="ignore_index"):
        run(2)


def test_samples_that_depend_on_each_other_are_refused_unless_asked_for():
    class Mixed(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(self(0.7 * batch[0] + 0.3 * batch[0].flip(0)), batch[1])

    with pytest.raises(ValueError, match="mixup in the step"):
        fit(Mixed(plain_mean), data(), LipschitzRegularization(WEIGHT))
    fit(Mixed(plain_mean), data(), LipschitzRegularization(WEIGHT, check=False))
    fit(Mixed(plain_mean), clamped(), LipschitzRegularization(WEIGHT, forward="own"))


def clamped():
    batches = data()
    batches.batches = [(x, y.clamp(min=0)) for x, y in batches.batches]
    return batches


def test_a_step_with_chance_is_compared_by_size():
    class Noisy(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(self(batch[0] + 0.1 * torch.randn_like(batch[0])), batch[1])

    fit(Noisy(plain_mean), data(), LipschitzRegularization(WEIGHT))
    with pytest.raises(ValueError, match="reduction: got 'mean'"):
        fit(Noisy(LOSSES["sum"][0]), clamped(), LipschitzRegularization(WEIGHT))


def test_samples_that_chance_mixes_are_refused_too():
    class Mixup(Net):
        def training_step(self, batch, batch_idx):
            images, labels = batch
            order = torch.randperm(len(images))
            scores = self(0.7 * images + 0.3 * images[order])
            return 0.7 * F.cross_entropy(scores, labels) + 0.3 * F.cross_entropy(scores, labels[order])

    with pytest.raises(ValueError, match="mixup in the step"):
        fit(Mixup(None), clamped(), LipschitzRegularization(WEIGHT))


def test_a_step_that_changes_its_inputs_is_named_before_the_first_step():
    class InPlace(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(self(batch[0].sub_(0.5)), batch[1])

    batches = data()
    before = batches.batches[0][0].clone()
    with pytest.raises(ValueError, match=r"training_step: changes the inputs of the batch in place.*forward='own'"):
        fit(InPlace(plain_mean), batches, LipschitzRegularization(WEIGHT))
    assert torch.equal(batches.batches[0][0], before)
    fit(InPlace(plain_mean), clamped(), LipschitzRegularization(WEIGHT, forward="own"))


def test_the_comparison_leaves_no_trace():
    class Keeps(Net):
        def __init__(self, loss):
            super().__init__(loss)
            self.norm = nn.BatchNorm2d(1).double()
            self.counter, self.seen, self.total = 0, {}, torch.zeros(())

        def training_step(self, batch, batch_idx):
            self.counter += 1
            self.seen[self.counter] = batch[0].requires_grad
            self.total += 1
            self.log("loss", self.loss(self(batch[0]), batch[1]))
            self.norm.eps = 1e-3
            return self.loss(self(self.norm(batch[0]) + torch.rand(1)), batch[1])

    with_check, without = Keeps(plain_mean), Keeps(plain_mean)
    for module, check in ((with_check, True), (without, False)):
        torch.manual_seed(5)
        fit(module, data(), LipschitzRegularization(WEIGHT, check=check))
    assert with_check.counter == with_check.total == 1
    assert with_check.seen == {1: True}
    assert with_check.norm.num_batches_tracked == 1
    assert torch.equal(with_check.found, without.found)
    assert "training_step" not in vars(with_check)
    assert not {"log", "log_dict", "backward", "manual_backward"} & set(vars(with_check))


def test_a_step_that_takes_no_half_batch_is_said_to_be_unchecked():
    def fixed(z, y):
        return F.cross_entropy(z.reshape(N, K), y.clamp(min=0))

    with pytest.warns(UserWarning, match="training_step does not run on half a batch.*check=False"):
        found = trained(fixed).found
    torch.testing.assert_close(found, trained(plain_mean).found)
    trained(fixed, check=False)  # warnings are errors


def test_a_step_without_manual_backward_is_named_at_the_end_of_the_epoch():
    class Plain(Net):
        def training_step(self, batch, batch_idx):
            self.loss(self(batch[0]), batch[1]).backward()

    with pytest.raises(ValueError, match=r"called self.manual_backward 0 times"):
        fit(Plain(plain_mean, manual=True), data(), LipschitzRegularization(WEIGHT, check=False))
