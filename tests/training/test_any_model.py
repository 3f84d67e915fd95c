"""Whatever is trained: lambdas and objects are protected like modules, one logit is the positive class's."""

import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_alignment.training import (
    AlignmentRegularizer,
    InterpretationRegularizer,
    JacobianRegularizer,
    LargeMargin,
    LocalLipschitz,
    adversarial_examples,
    alignment_penalty,
    distillation_loss,
    input_gradient_penalty,
    jacobian_penalty,
    margin_penalty,
    saliency_penalty,
    soft_labels,
)

N = 6


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)),
    ).double()  # fmt: skip


class Holder:
    def __init__(self, model):
        self.parts = {"model": model}

    def __call__(self, x):
        return self.parts["model"](x)


FORMS = {
    "module": lambda model: model,
    "method": lambda model: model.forward,
    "lambda": lambda model: lambda x: model(x),
    "partial": lambda model: partial(lambda net, x: net(x), model),
    "object": Holder,
    "namespace": lambda model: SimpleNamespace(model=model).model.__call__,
}


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(N, 1, 3, 3, dtype=torch.float64, generator=generator), torch.arange(N) % 3


USES = {
    "double backward": lambda f, x, y: LocalLipschitz(1.0)(f, x, y).backward(),
    "finite differences": lambda f, x, y: LocalLipschitz(1.0, method="finite-difference")(f, x, y).backward(),
    "projections": lambda f, x, y: JacobianRegularizer(1.0)(f, x, y).backward(),
    "adversarial examples": lambda f, x, y: adversarial_examples(f, x, y, attack="pgd-l2", epsilon=0.5, steps=2),
    "soft labels": lambda f, x, y: soft_labels(f, x, temperature=2.0),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("form", FORMS)
def test_modes_and_buffers_stay(form, use):
    model = net().train()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    held = [id(buffer) for buffer in model.buffers()]
    USES[use](FORMS[form](model), *batch())
    assert [module.training for module in model.modules()] == modes
    assert [id(buffer) for buffer in model.buffers()] == held
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_soft_labels_and_adversarial_examples_are_those_of_eval_mode(form):
    model, (x, y) = net().eval(), batch()
    labels = soft_labels(model, x, temperature=2.0)
    found = adversarial_examples(model, x, y, attack="pgd-l2", epsilon=0.5, steps=2)
    model.train()
    assert torch.equal(soft_labels(FORMS[form](model), x, temperature=2.0), labels)
    assert torch.equal(adversarial_examples(FORMS[form](model), x, y, attack="pgd-l2", epsilon=0.5, steps=2), found)


@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_finite_differences_see_one_spectral_norm(wrap):
    """Power iterations between two passes would look like a slope."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), wrap(nn.Linear(9, 16)), nn.Tanh(), wrap(nn.Linear(16, 3))).double().train()
    x, y = batch()
    double, differences = (LocalLipschitz(1.0), LocalLipschitz(1.0, method="finite-difference", step=1e-5))
    parameters = list(model.parameters())
    terms = double(model, x, y), differences(model, x, y)
    torch.testing.assert_close(*terms)
    exact, near = (torch.autograd.grad(term, parameters, materialize_grads=True) for term in terms)
    torch.testing.assert_close(near, exact, rtol=1e-3, atol=1e-6)


def test_scripted_modules_keep_their_statistics():
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double().train()
    x, y = batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted: Any = torch.jit.trace(model, x)
    model.load_state_dict(scripted.state_dict())
    term = LocalLipschitz(1.0)(scripted, x, y)
    torch.testing.assert_close(term, LocalLipschitz(1.0)(model, x, y))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in scripted.state_dict().items())


class Hard(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(9, 3).double()

    def forward(self, x):
        return F.hardsigmoid(self.linear(x.flatten(1)))


def test_operations_without_a_second_derivative_are_named_with_the_way_out():
    model, (x, y) = Hard(), batch()
    with pytest.raises(ValueError, match=r"no second derivative in torch; expected method='finite-difference'"):
        LocalLipschitz(1.0)(model, x, y)
    LocalLipschitz(1.0, method="finite-difference")(model, x, y).backward()
    leaf = x.flatten(1).clone().requires_grad_()
    loss = F.ctc_loss(
        (leaf @ model.linear.weight.T).log_softmax(1).unsqueeze(1),
        torch.ones(1, 2, dtype=torch.long),
        torch.tensor([N]),
        torch.tensor([2]),
    )
    with pytest.raises(ValueError, match=r"loss: an operation .* in its graph has no second derivative"):
        LocalLipschitz(1.0).from_loss(loss, leaf)
    compiled = torch.compile(lambda z: torch.tanh(z @ model.linear.weight.T), backend="aot_eager")
    with pytest.raises(ValueError, match="scores: a compiled function in its graph"):
        input_gradient_penalty(compiled(leaf), leaf, y)
    term = LocalLipschitz(1.0)(lambda z: compiled(z.flatten(1)), x, y)  # called by the regularizer, it runs uncompiled
    term.backward()


def test_models_whose_first_operation_works_in_place():
    model, (x, y) = net().eval(), batch()
    before = x.clone()

    def centred(inputs):
        return model(inputs.sub_(0.5).relu_())

    term = LocalLipschitz(1.0)(centred, x, y)
    torch.testing.assert_close(term, LocalLipschitz(1.0)(lambda z: model((z - 0.5).relu()), x, y))
    adversarial_examples(centred, x, y, attack="pgd-linf", epsilon=0.1, steps=2)
    assert torch.equal(x, before)


# One logit: everything is that of binary_cross_entropy_with_logits.


def one_logit(column):
    torch.manual_seed(0)
    last = [] if column else [nn.Flatten(0)]
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 1), *last).double()


def by_hand(model, quantity):
    """For each sample: its input gradient of ``quantity(psi, y)``, flat, on the graph of the parameters."""
    x, y = batch()[0], torch.arange(N) % 2
    rows = []
    for sample, label in zip(x, y, strict=True):
        leaf = sample.clone().requires_grad_()
        psi = model(leaf[None]).reshape(())
        rows.append(torch.autograd.grad(quantity(psi, label), leaf, create_graph=True)[0].flatten())
    return torch.stack(rows)


def bce(psi, label):
    return F.binary_cross_entropy_with_logits(psi, label.double())


def sign(label):
    return 2 * label - 1


PENALTIES: dict[str, Any] = {
    "loss": (
        lambda z, x, y: input_gradient_penalty(z, x, y), LocalLipschitz(1.0),
        lambda model: by_hand(model, bce).square().sum(1),
    ),
    "score": (
        lambda z, x, y: input_gradient_penalty(z, x, y, of="score"), LocalLipschitz(1.0, of="score"),
        lambda model: (by_hand(model, lambda psi, label: sign(label) * psi) / 2).square().sum(1),
    ),
    "margin": (
        lambda z, x, y: input_gradient_penalty(z, x, y, of="margin"), LocalLipschitz(1.0, of="margin"),
        lambda model: by_hand(model, lambda psi, label: psi).square().sum(1),
    ),
    "jacobian": (
        lambda z, x, y: jacobian_penalty(z, x), JacobianRegularizer(1.0, projections=None),
        lambda model: by_hand(model, lambda psi, label: psi).square().sum(1) / 4,
    ),
    "large margin": (
        lambda z, x, y: margin_penalty(z, x, y, margin=9.0, eps=0.0), LargeMargin(1.0, margin=9.0, eps=0.0),
        lambda model: 9 - sign(torch.arange(N) % 2) * model(batch()[0]).flatten()
        / by_hand(model, lambda psi, label: psi).norm(dim=1),
    ),
    "alignment": (
        lambda z, x, y: alignment_penalty(z, x, y), AlignmentRegularizer(1.0),
        lambda model: 1 - cosines(by_hand(model, lambda psi, label: psi)).abs(),
    ),
    "interpretation": (
        lambda z, x, y: saliency_penalty(z, x, y, batch()[0]),
        InterpretationRegularizer(1.0),
        lambda model: 1 - cosines(by_hand(model, lambda psi, label: sign(label) * psi)),
    ),
}  # fmt: skip


def cosines(rows):
    return F.cosine_similarity(rows, batch()[0].flatten(1))


@pytest.mark.parametrize("labels", [torch.long, torch.float32])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_of_one_logit(name, column, labels):
    penalty, regularizer, reference = PENALTIES[name]
    model, x, y = one_logit(column), batch()[0], (torch.arange(N) % 2).to(labels)
    leaf = x.clone().requires_grad_()
    expected = reference(model)
    torch.testing.assert_close(penalty(model(leaf), leaf, y), expected)
    extras = (batch()[0],) if name == "interpretation" else ()
    term = regularizer(model, x, y, *extras)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(term, parameters, materialize_grads=True),
        torch.autograd.grad(expected.mean(), parameters, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("column", [False, True])
def test_examples_of_one_logit_are_harder_and_soft_labels_are_the_sigmoid(column):
    model, x, y = one_logit(column), batch()[0], (torch.arange(N) % 2).double()
    nn.init.constant_(
        cast(Tensor, model[3].bias), -0.5
    )  # not all of them in [0, 1], where they would look like probabilities
    found = adversarial_examples(model, x, y, attack="pgd-l2", epsilon=0.5, steps=5, random_start=False)

    def losses(inputs):
        return F.binary_cross_entropy_with_logits(model(inputs).flatten(), y, reduction="none")

    assert (losses(found) > losses(x)).all()
    chance = torch.sigmoid(model(x).flatten() / 2.0)
    torch.testing.assert_close(soft_labels(model, x, temperature=2.0), torch.stack([1 - chance, chance], 1))
    torch.testing.assert_close(distillation_loss(model(x), y, temperature=1.0), losses(x))
