"""What holds for every penalty and its regularizer, with both methods: a table of cases times properties."""

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from captum_alignment import training
from tests.training import literal

N, K = 5, 4


@dataclass
class Case:
    """A pure function (scores, inputs, target, *extras), its regularizer, and the literal form of both."""

    penalty: Callable[..., Tensor]
    regularizer: Callable[..., training.Regularizer]
    reference: Callable[..., Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    extras: tuple[Tensor, ...] = ()

    def __post_init__(self):
        self.make = partial(self.regularizer, **self.options)

    def expected(self, net, inputs, target):
        return self.reference(net, inputs, target, *self.extras, **self.options)

    def given(self, net, inputs, target):
        leaf = inputs.clone().requires_grad_()
        return self.penalty(net(leaf), leaf, target, *self.extras, **self.options)


def jacobian_of(scores, inputs, target, **options):
    return training.jacobian_penalty(scores, inputs, **options)


def first_directions(n):
    """What the regularizer's private generator yields first."""
    found = torch.randn(n, N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return found / found.norm(dim=2, keepdim=True)


def case(function, regularizer, reference, options, *extras):
    return Case(function, regularizer, reference, options, extras)


MAPS = torch.randn(N, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
lipschitz = partial(case, training.input_gradient_penalty, partial(training.LocalLipschitz, 1.0), literal.lipschitz)
saliency = partial(case, training.saliency_penalty, training.InterpretationRegularizer, literal.interpretation)
margin = partial(case, training.margin_penalty, partial(training.LargeMargin, 1.0), literal.large_margin)
alignment = partial(case, training.alignment_penalty, partial(training.AlignmentRegularizer, 1.0), literal.alignment)
CASES = {
    "lipschitz": lipschitz({}),
    "lipschitz margin l1": lipschitz({"of": "margin", "norm": math.inf, "squared": False}),
    "jacobian": Case(
        jacobian_of, partial(training.JacobianRegularizer, 1.0, projections=None), literal.jacobian
    ),
    "jacobian, 3 projections": Case(
        lambda *a: jacobian_of(*a, projections=3, generator=torch.Generator().manual_seed(0)),
        partial(training.JacobianRegularizer, 1.0, projections=3),
        partial(literal.jacobian, directions=first_directions(3)),
    ),
    "interpretation": saliency({"direction": 3.0, "magnitude": 0.15}, MAPS),
    "interpretation, batch": saliency({"direction": 0.7, "magnitude": 0.5, "magnitude_over": "batch"}, MAPS),
    "interpretation of the loss": saliency({"direction": 1.0, "magnitude": 0.1, "of": "loss"}, MAPS),
    "large margin": margin({"margin": 2.0}),
    "large margin, l1": margin({"margin": 5.0, "norm": 1}),
    "large margin, linf, 2 rivals": margin({"margin": 0.5, "norm": math.inf, "candidates": 2, "eps": 0.0}),
    "alignment": alignment({}),
    "alignment of the margin, linf": alignment({"of": "margin", "norm": math.inf}),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_penalty = pytest.mark.parametrize(
    "case", [CASES[name] for name in ("lipschitz", "jacobian", "interpretation", "large margin", "alignment")],
    ids=lambda c: c.reference.__name__,
)  # fmt: skip
both_methods = pytest.mark.parametrize("method", ["double-backward", "finite-difference"])


class Smooth(nn.Module):
    def __init__(self, classes=K):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8).double(), nn.Linear(8, classes).double()

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).tanh())


def batch(n=N, k=K):
    return torch.rand(n, 2, 3, dtype=torch.float64), torch.arange(n) % k


def parameter_gradients(value, net):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()), materialize_grads=True)])


@every_case
def test_value_and_parameter_gradients_are_those_of_the_literal_form(case):
    net = Smooth()
    inputs, target = batch()
    ours, reference = case.given(net, inputs, target), case.expected(net, inputs, target)
    torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-13)
    gradients = parameter_gradients(ours.mean(), net)
    assert gradients.abs().max() > 1e-3
    torch.testing.assert_close(gradients, parameter_gradients(reference.mean(), net), rtol=1e-9, atol=1e-12)


@every_case
@pytest.mark.parametrize(
    ("method", "step", "rtol"), [("double-backward", 0.01, 1e-9), ("finite-difference", 1e-6, 1e-5)]
)
def test_regularizers_equal_the_literal_form_with_both_methods(case, method, step, rtol):
    net = Smooth()
    inputs, target = batch()
    term = case.make(method=method, step=step)(net, inputs, target, *case.extras)
    reference = case.expected(net, inputs, target).mean()
    torch.testing.assert_close(term, reference, rtol=1e-11, atol=1e-13)
    ours, theirs = parameter_gradients(term, net), parameter_gradients(reference, net)
    assert (ours - theirs).norm() <= rtol * theirs.norm()


def test_finite_differences_follow_finlay_and_oberman_written_by_hand():
    net, h = Smooth(), 0.01
    inputs, target = batch()
    x = inputs.clone().requires_grad_()
    loss = F.cross_entropy(net(x), target, reduction="none")
    (g,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
    length = g.flatten(1).norm(dim=1)
    moved = inputs + h * g / length.reshape(-1, 1, 1)
    slope = (F.cross_entropy(net(moved), target, reduction="none") - loss) / h
    # The value of the slope is replaced by the exact norm: d(slope²) = 2 slope d(slope) with slope -> ‖g‖.
    expected = parameter_gradients((2 * length * slope).mean(), net)
    term = training.LocalLipschitz(1.0, method="finite-difference", step=h)(net, inputs, target)
    torch.testing.assert_close(parameter_gradients(term, net), expected, rtol=1e-11, atol=1e-14)


@every_penalty
@pytest.mark.parametrize("classes", [1, 2])
def test_one_signed_score_is_two_classes(case, classes):
    net = Smooth(classes)
    inputs, target = batch(k=2)
    torch.testing.assert_close(case.given(net, inputs, target), case.expected(net, inputs, target))


@every_penalty
@both_methods
def test_a_tuple_is_one_vector(case, method):
    net = Smooth()
    inputs, target = batch()
    parts = inputs[:, :1], inputs[:, 1:]
    extras = [(maps[:, :1], maps[:, 1:]) for maps in case.extras]
    whole = case.make(method=method)(net, inputs, target, *case.extras)
    split = case.make(method=method)(lambda a, b: net(torch.cat([a, b], 1)), parts, target, *extras)
    torch.testing.assert_close(whole, split)
    torch.testing.assert_close(parameter_gradients(whole, net), parameter_gradients(split, net))


@every_penalty
@both_methods
def test_a_flat_model_has_finite_gradients(case, method):
    net = Smooth()
    nn.init.zeros_(net.last.weight)
    inputs, target = batch()
    term = case.make(method=method)(net, inputs, target, *case.extras)
    assert term.isfinite()
    assert parameter_gradients(term, net).isfinite().all()


def test_zero_maps_and_zero_images_have_no_direction():
    net = Smooth()
    inputs, target = batch()
    term = training.InterpretationRegularizer(1.0)(net, inputs, target, torch.zeros_like(inputs))
    assert term.item() == 1
    assert parameter_gradients(term, net).tolist() == [0] * 84 + [0] * 8
    term = training.AlignmentRegularizer(1.0)(net, torch.zeros_like(inputs), target)
    assert term.item() == 1
    assert parameter_gradients(term, net).isfinite().all()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, K)

    def forward(self, x):
        tokens = self.embed(x).unsqueeze(1)
        return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, K)
        self.cudnn = []

    def forward(self, x):
        self.cudnn.append(torch.backends.cudnn.enabled)
        return self.head(self.cell(x)[0][:, -1])


class Checkpointed(Smooth):
    def forward(self, x):
        hidden: Any = checkpoint(lambda x: self.first(x.flatten(1)).tanh(), x, use_reentrant=False)
        return self.last(hidden)


def in_place():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, K))


@every_penalty
@both_methods
@pytest.mark.parametrize("make", [Attention, Recurrent, Checkpointed, in_place], ids=lambda f: f.__name__)
def test_special_layers(case, method, make):
    net = make().double()
    inputs, target = batch()
    term = case.make(method=method, step=1e-6)(net, inputs, target, *case.extras)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        reference = case.expected(net, inputs, target).mean()
    torch.testing.assert_close(term, reference)
    ours, theirs = parameter_gradients(term, net), parameter_gradients(reference, net)
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_cudnn_is_off_for_recurrent_layers_only_where_needed():
    net = Recurrent()
    inputs, target = torch.rand(N, 2, 3), torch.zeros(N, dtype=torch.long)
    before = torch.backends.cudnn.enabled
    training.LocalLipschitz(1.0)(net, inputs, target)
    training.LocalLipschitz(1.0, method="finite-difference")(net, inputs, target)
    assert net.cudnn == [False, before, before]
    assert torch.backends.cudnn.enabled == before


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@both_methods
def test_under_autocast_terms_are_float32_and_near(case, dtype, method):
    net = Smooth().float()
    inputs, target = batch()
    extras = [maps.float() for maps in case.extras]
    exact = case.make(method=method)(net, inputs.float(), target, *extras)
    with torch.autocast("cpu", dtype=dtype):
        term = case.make(method=method)(net, inputs.float(), target, *extras)
    assert term.dtype == torch.float32
    assert (term == exact) == (method == "finite-difference")
    torch.testing.assert_close(term, exact, rtol=0.05, atol=0.01)
    assert parameter_gradients(term, net).isfinite().all()


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_models_have_float32_terms(case, dtype):
    net = Smooth()
    inputs, target = batch()
    exact = case.make()(net, inputs, target, *case.extras)
    term = case.make()(net.to(dtype), inputs.to(dtype), target, *case.extras)
    assert term.dtype == torch.float32
    torch.testing.assert_close(term.double(), exact, rtol=0.05, atol=0.01)
    with pytest.raises(ValueError, match=f"model: returned {dtype} scores.*rounding noise"):
        case.make(method="finite-difference")(net, inputs.to(dtype), target, *case.extras)


def test_finite_differences_draw_the_same_dropout_masks():
    class Dropped(Smooth):
        def forward(self, x):
            return self.last(F.dropout(self.first(x.flatten(1)).tanh(), 0.5))

    net = Dropped()
    inputs, target = batch()
    gradients = []
    for method in ("double-backward", "finite-difference"):
        torch.manual_seed(3)
        term = training.LocalLipschitz(1.0, method=method, step=1e-6)(net, inputs, target)
        gradients.append((parameter_gradients(term, net), torch.rand(1)))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


@every_penalty
@both_methods
def test_value_alone_where_gradients_are_off_and_the_model_as_it_came(case, method):
    net = Smooth()
    inputs, target = batch()
    expected = case.make(method=method)(net, inputs, target, *case.extras).detach()
    with torch.inference_mode():
        extras = [maps.clone() for maps in case.extras]
        value = case.make(method=method)(net, inputs.clone(), target.clone(), *extras)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)
    assert all(p.grad is None for p in net.parameters())
    assert not inputs.requires_grad


@every_penalty
def test_the_mean_gradient_norm_is_kept(case):
    regularizer = case.make()
    assert regularizer.gradient_norm is None
    net = Smooth()
    inputs, target = batch()
    regularizer(net, inputs, target, *case.extras)
    assert regularizer.gradient_norm is not None
    assert regularizer.gradient_norm > 0
    assert not regularizer.gradient_norm.requires_grad


def test_the_mean_gradient_norm_of_the_loss():
    net, regularizer = Smooth(), training.LocalLipschitz(0.3)
    inputs, target = batch()
    expected = literal.lipschitz(net, inputs, target, squared=False).mean().detach()
    regularizer(net, inputs, target)
    torch.testing.assert_close(regularizer.gradient_norm, expected)
    leaf = inputs.clone().requires_grad_()
    regularizer.from_loss(8 * F.cross_entropy(net(leaf), target), leaf, scale=8)
    torch.testing.assert_close(regularizer.gradient_norm, expected)


def test_projections_are_unbiased_differ_by_step_and_repeat_by_run():
    net = Smooth()
    inputs, target = batch()
    regularizer, again = training.JacobianRegularizer(1.0), training.JacobianRegularizer(1.0)
    terms = [regularizer(net, inputs, target).detach() for _ in range(400)]
    assert len({term.item() for term in terms}) == 400
    assert [again(net, inputs, target).item() for _ in range(5)] == [term.item() for term in terms[:5]]
    exact = literal.jacobian(net, inputs, target).mean()
    values = torch.stack(terms)
    assert (values.mean() - exact).abs() < 4 * values.std() / 20
    own = torch.Generator().manual_seed(7)
    training.JacobianRegularizer(1.0, generator=own)(net, inputs, target)
    assert not own.get_state().equal(torch.Generator().manual_seed(7).get_state())


def test_the_hinge_rests_beyond_the_margin_and_equals_linearized_robustness():
    from captum_alignment import linear_analysis

    net = Smooth()
    inputs, target = batch()
    rho = linear_analysis(net, inputs, target).linearized_robustness
    leaf = inputs.clone().requires_grad_()
    ours = training.margin_penalty(net(leaf), leaf, target, margin=10.0, eps=0.0)
    torch.testing.assert_close(ours.detach(), 10 - rho)
    leaf = inputs.clone().requires_grad_()
    resting = training.margin_penalty(net(leaf), leaf, net(leaf).argmax(1), margin=0.0)
    assert resting.tolist() == [0] * N
    assert parameter_gradients(resting.sum(), net).abs().max() == 0


@every_penalty
def test_regularizers_can_be_copied_and_pickled(case):
    net = Smooth()
    inputs, target = batch()
    regularizer = case.make()
    terms = [r(net, inputs, target, *case.extras) for r in
             (copy.deepcopy(regularizer), pickle.loads(pickle.dumps(regularizer)), regularizer)]  # fmt: skip
    assert terms[0] == terms[1] == terms[2]


def test_compiled_submodules_run_as_they_were_before():
    plain = Smooth()
    compiled = nn.Sequential()
    compiled.add_module("net", cast(nn.Module, torch.compile(plain, backend="aot_eager")))
    inputs, target = batch()
    expected = parameter_gradients(training.LocalLipschitz(1.0)(plain, inputs, target), plain)
    compiled(inputs)
    ours = parameter_gradients(training.LocalLipschitz(1.0)(compiled, inputs, target), plain)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_finite_differences_run_the_compiled_model(backend):
    plain = Smooth()
    compiled = torch.compile(plain, backend=backend)
    inputs, target = batch()
    make = partial(training.LargeMargin, 1.0, margin=2.0, method="finite-difference")
    expected = parameter_gradients(make()(plain, inputs, target), plain)
    torch.testing.assert_close(parameter_gradients(make()(compiled, inputs, target), plain), expected)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        ("JacobianRegularizer", {"weight": -1.0}, ValueError, "weight: got -1.0"),
        ("JacobianRegularizer", {"weight": 1.0, "projections": 0}, ValueError, "projections: got 0, expected a pos"),
        ("InterpretationRegularizer", {"direction": -1.0}, ValueError, "direction: got -1.0"),
        ("InterpretationRegularizer", {"direction": 1.0, "magnitude": -1.0}, ValueError, "magnitude: got -1.0"),
        ("InterpretationRegularizer", {"direction": 1.0, "of": "x"}, ValueError, "of: got 'x'"),
        ("InterpretationRegularizer", {"direction": 1.0, "magnitude_over": "x"}, ValueError, "magnitude_over: got 'x'"),
        ("LargeMargin", {"weight": 1.0, "margin": -1}, ValueError, "margin: got -1"),
        ("LargeMargin", {"weight": 1.0, "margin": 1, "norm": 3}, ValueError, "norm: got 3, expected 1, 2 or inf"),
        ("LargeMargin", {"weight": 1.0, "margin": 1, "candidates": 0}, ValueError, "candidates: got 0"),
        ("AlignmentRegularizer", {"weight": 1.0, "of": "x"}, ValueError, "of: got 'x'"),
        ("AlignmentRegularizer", {"weight": 1.0, "method": "x"}, ValueError, "method: got 'x', expected 'double-back"),
        ("AlignmentRegularizer", {"weight": 1.0, "step": 0}, ValueError, "step: got 0"),
        ("AlignmentRegularizer", {"weight": "1"}, TypeError, "weight: got str"),
    ],
)
def test_wrong_options_are_named(make, options: Any, error, message):
    with pytest.raises(error, match=message):
        getattr(training, make)(**options)


def test_wrong_maps_and_generators_are_named():
    net, regularizer = Smooth(), training.InterpretationRegularizer(1.0)
    inputs, target = batch()
    with pytest.raises(TypeError, match=r"maps: got nothing, expected regularizer\(model, inputs, target, maps\)"):
        regularizer(net, inputs, target)
    with pytest.raises(ValueError, match=r"maps: got shapes \[\(5, 2\)\], expected those of the inputs"):
        regularizer(net, inputs, target, inputs[:, :, 0])
    with pytest.raises(TypeError, match=r"maps: got dtype torch.int64"):
        regularizer(net, inputs, target, inputs.long())
    leaf = inputs.clone().requires_grad_()
    with pytest.raises(ValueError, match="generator: got None"):
        training.jacobian_penalty(net(leaf), leaf, projections=2)
    with pytest.raises(ValueError, match="scores: does not depend on the inputs"):
        training.margin_penalty(net(inputs), leaf, target, margin=1.0)
