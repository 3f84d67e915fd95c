"""The Lightning callbacks for modules whose forward is something else, for tokens, and for interrupted trainings."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import (
    AdversarialTraining,
    JacobianRegularizer,
    LargeMargin,
    LayerInputs,
    LipschitzRegularization,
    LocalLipschitz,
    RegularizationCallback,
    adversarial_examples,
)
from tests.training.test_lightning import WEIGHT, Batches, Module, Recorder, fit, flat_gradients, twins

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


class Generator(Module):
    """A module whose `forward` returns images, and whose scores are elsewhere."""

    def forward(self, x):
        return {"images": x}

    def score(self, x):
        return super().forward(x)

    def training_step(self, batch, batch_idx):
        torch.manual_seed(batch_idx)
        return F.cross_entropy(self.score(batch[0]), batch[1])


def test_scores_say_what_is_penalised_and_attacked():
    regularizer, data, found = LargeMargin(0.5, margin=1.0), Batches(), []
    for module, scores in ((Module(), None), (Generator(), lambda module, x: module.score(x))):
        torch.manual_seed(0)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
        module.dropout = nn.Dropout(0.0)
        recorder = Recorder("large_margin")
        attack = AdversarialTraining(0.1, steps=2, scores=scores)
        fit(module, data, attack, RegularizationCallback(regularizer, scores=scores), recorder)
        found.append(recorder)
    torch.testing.assert_close(found[0].gradients, found[1].gradients)
    assert found[0].terms == found[1].terms
    with pytest.raises(TypeError, match="forward_func: returned dict"):
        fit(Generator(), Batches(), RegularizationCallback(regularizer))
    with pytest.raises(ValueError, match="scores: is for forward='own', got forward='shared'"):
        RegularizationCallback(LocalLipschitz(1.0), scores=lambda module, x: module(x), forward="shared")


class Text(Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 4), nn.Linear(20, 3)

    def forward(self, x):
        return self.head(self.embedding(x).flatten(1).tanh())


def text():
    batches = Batches()
    tokens = torch.randint(20, (22, 5), generator=torch.Generator().manual_seed(0))
    batches.batches = list(zip(tokens.split(6), (torch.arange(22) % 3).split(6), strict=True))
    return batches


def test_tokens_are_penalised_through_their_embedding():
    ours, theirs, data, recorder = Text(), Text(), text(), Recorder()
    theirs.load_state_dict(ours.state_dict())
    fit(ours, data, LipschitzRegularization(WEIGHT, layer="embedding"), recorder)
    optimizer = theirs.configure_optimizers()
    for (tokens, y), gradients in zip(data, recorder.gradients, strict=True):
        embedded = theirs.embedding(tokens)
        losses = F.cross_entropy(theirs.head(embedded.flatten(1).tanh()), y, reduction="none")
        (g,) = torch.autograd.grad(losses.sum(), embedded, create_graph=True)
        optimizer.zero_grad()
        (losses.mean() + WEIGHT * g.flatten(1).square().sum(1).mean()).backward()
        torch.testing.assert_close(gradients, flat_gradients(theirs))
        optimizer.step()


def test_a_frozen_embedding_and_a_wrong_name():
    frozen = Text()
    frozen.embedding.requires_grad_(False)
    recorder = Recorder()
    fit(frozen, text(), LipschitzRegularization(WEIGHT, layer="embedding"), recorder)
    assert min(recorder.terms) > 0
    with pytest.raises(ValueError, match="layer: got 'embed', expected one of"):
        fit(Text(), text(), LipschitzRegularization(WEIGHT, layer="embed"))


def test_a_layer_that_runs_twice_counts_as_one_vector():
    class Pair(Text):
        def training_step(self, batch, batch_idx):
            one, two = self.embedding(batch[0]), self.embedding(batch[0].flip(1))
            return F.cross_entropy(self.head((one * two.cos()).flatten(1)), batch[1])

    module, recorder, (tokens, y) = Pair(), Recorder(), text().batches[0]
    one, two = (module.embedding(t).detach().requires_grad_() for t in (tokens, tokens.flip(1)))
    loss = F.cross_entropy(module.head((one * two.cos()).flatten(1)), y, reduction="sum")
    expected = sum(g.square().sum() for g in torch.autograd.grad(loss, (one, two))) / len(y)
    fit(module, text(), LipschitzRegularization(WEIGHT, layer="embedding"), recorder)
    assert recorder.terms[0] == pytest.approx(WEIGHT * float(expected), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # of torch 2.8, in its LBFGS
@pytest.mark.parametrize("layer", [None, "0"])
def test_an_optimizer_with_a_closure_gets_the_term_of_each_call(layer):
    class Searched(Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
            self.seen = []

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def on_after_backward(self):
            self.seen.append(flat_gradients(self.net))

        def configure_optimizers(self):  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.optim.LBFGS(self.net.parameters(), max_iter=3)

    module, (x, y) = Searched(), Batches().batches[0]
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    net.load_state_dict(module.net.state_dict())
    data = Batches()
    data.batches = [(x, y)]
    callback = LipschitzRegularization(WEIGHT, layer=layer and "net.0", check=layer is None)
    fit(module, data, callback)
    optimizer, expected = torch.optim.LBFGS(net.parameters(), max_iter=3), []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y) + LocalLipschitz(WEIGHT)(net, x, y)
        loss.backward()
        expected.append(flat_gradients(net))
        return loss

    optimizer.step(closure)
    assert len(module.seen) == len(expected) > 1
    torch.testing.assert_close(module.seen[0], expected[0])
    for ours, theirs in zip(module.seen[1:], expected[1:], strict=True):  # Lightning reports the loss without the term
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_model_from_its_embedding_on():
    model, (tokens, y) = Text().double().eval(), text().batches[0]
    embedded = LayerInputs(model, "embedding", tokens)
    assert torch.equal(embedded.inputs, model.embedding(tokens))
    assert torch.equal(embedded(embedded.inputs), model(tokens))
    assert not model.embedding._forward_hooks

    def rest(values):
        return model.head(values.flatten(1).tanh())

    for regularizer in (LocalLipschitz(1.0), LargeMargin(1.0, margin=5.0)):
        ours, theirs = regularizer(embedded, embedded.inputs, y), regularizer(rest, embedded.inputs, y)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*(torch.autograd.grad(t, model.head.weight)[0] for t in (ours, theirs)))
    found = adversarial_examples(
        embedded, embedded.inputs, y, attack="pgd-l2", epsilon=1.0, steps=3, bounds=(-torch.inf, torch.inf)
    )
    assert F.cross_entropy(rest(found), y) > F.cross_entropy(model(tokens), y)
    with pytest.raises(ValueError, match="inputs: got 2 samples"):
        embedded(embedded.inputs[:2])


class Stop(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [RegularizationCallback(JacobianRegularizer(WEIGHT)), RegularizationCallback(JacobianRegularizer(0.1))],
        lambda: [AdversarialTraining(0.3, steps=2)],
    ],
)
def test_an_interrupted_training_resumes_to_the_same_weights(make, tmp_path):
    data, weights = Batches(), []
    for resume in (False, True):
        module = Module()
        torch.manual_seed(1)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
        module.dropout = nn.Dropout(0.0)
        stop = [] if resume else [Stop(tmp_path / "one.ckpt")]
        fit(module, data, *make(), *stop, max_epochs=2, resume=tmp_path / "one.ckpt" if resume else None)
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*weights)


def test_expanded_and_read_only_inputs_are_attacked_and_never_written_to():
    base = torch.rand(1, 1, 4, 4)
    data = Batches()
    data.batches = [(base.expand(6, 1, 4, 4), torch.arange(6) % 3)]
    seen, before = [], base.clone()
    module = Module()
    step = module.training_step
    module.training_step = lambda batch, batch_idx: (seen.append(batch[0].detach().clone()), step(batch, batch_idx))[1]
    fit(module, data, AdversarialTraining(0.3, steps=2), LipschitzRegularization(WEIGHT, check=False))
    assert (seen[0] - base).abs().amax() > 0.01
    assert not torch.equal(seen[0][0], seen[0][1])
    assert torch.equal(base, before)
    assert torch.equal(data.batches[0][0], before.expand(6, 1, 4, 4))


def test_shared_terms_under_adversarial_training_are_those_of_the_adversarial_examples():
    ours, theirs = twins()
    data, recorder = Batches(), Recorder()
    fit(ours, data, LipschitzRegularization(WEIGHT), AdversarialTraining(0.3, steps=2), recorder)
    generator = torch.Generator().manual_seed(0)
    expected, optimizer = [], theirs.configure_optimizers()
    for index, (x, y) in enumerate(data):
        found = adversarial_examples(theirs, x, y, attack="pgd-l2", epsilon=0.3, steps=2, generator=generator)
        optimizer.zero_grad()
        leaf = found.clone().requires_grad_()
        torch.manual_seed(index)
        loss = F.cross_entropy(theirs(leaf), y)
        (g,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (loss + WEIGHT * (g * len(x)).flatten(1).square().sum(1).mean()).backward()
        expected.append(flat_gradients(theirs))
        optimizer.step()
    torch.testing.assert_close(recorder.gradients, expected)
