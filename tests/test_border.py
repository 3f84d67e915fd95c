"""Kinds of model x public functions: each cell is that of the plain module, or a sentence that names the argument."""

import copy
import functools
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import foolbox
import pytest
import torch
import torch.utils.checkpoint as ckpt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from captum_alignment import Alignment, LinearizedRobustness, Shared, adversarial_distance, linear_analysis
from captum_alignment.attr import FullGradient
from captum_alignment.metrics import deletion_curve, homogeneous_decomposition, linearity_profile, randomization_check
from captum_alignment.robust import FoolboxPerturbation
from captum_alignment.study import evaluate
from captum_alignment.training import JacobianRegularizer, LocalLipschitz, adversarial_examples, soft_labels

N, D, K = 4, 6, 3


def _plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.ReLU(), nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K)).double().eval()


NET: Any = _plain()
X = torch.rand(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
Y = NET(X).argmax(1).detach()


class Wrapped(nn.Module):
    """The plain network with something before and after."""

    def __init__(self, run: Callable[[Any, Tensor], Any], *parts: nn.Module, train: bool = False) -> None:
        super().__init__()
        self.net, self.parts, self.run = copy.deepcopy(NET), nn.ModuleList(parts).double(), run
        self.train(train)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = copy.deepcopy(NET)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.net[1](self.net[0](x))
        return self.net[3](self.kept.relu())


class Holder:
    def __init__(self) -> None:
        self.parts = {"net": copy.deepcopy(NET)}

    def __call__(self, x: Tensor) -> Tensor:
        return self.parts["net"](x)

    predict = __call__


def _with(change: Callable[[Any], Any]) -> Any:
    net: Any = copy.deepcopy(NET)
    changed = change(net)
    return net if changed is None else changed


def _normed(kind: Any) -> nn.Module:
    """A parametrised network whose plain function is that of `NET`."""
    net: Any = copy.deepcopy(NET)
    if kind is parametrizations.weight_norm:
        kind(net[1])
    else:  # the spectral norm changes the function: undo it with a factor
        sigma = torch.linalg.matrix_norm(net[1].weight.detach(), 2)
        bias = net[1].bias.detach().clone()
        kind(net[1], n_power_iterations=100)
        net.eval()
        scale = sigma

        def run(_: Any, x: Tensor) -> Tensor:
            h = F.relu(x)
            return net[3]((scale * (net[1](h) - net[1].bias) + bias).relu())

        return Wrapped(run, net)  # reaches its layers through the closure
    return net.eval()


def _in_place(self: Any, x: Tensor) -> Tensor:
    return self.net(x.add_(0.0))


def _seeded_noise(self: Any, x: Tensor) -> Tensor:
    noise = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    return self.net(x + 0 * noise)


def _batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(D, eps=0.0)
    return Wrapped(lambda self, x: self.net(self.parts[0](x)), norm)


def _fixed_size(self: Any, x: Tensor) -> Tensor:
    assert len(x) == N
    return self.net(x)


def _dropping(module: nn.Module) -> Wrapped:
    return Wrapped(lambda self, x: self.net(self.parts[0](x)), module, train=True)


def _closure(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: net(x)


def _preprocessed() -> Any:
    net = Wrapped(lambda self, x: self.net(x * 0.5 + 0.25))
    steps = {"mean": torch.tensor([0.25]).double(), "std": torch.tensor([0.5]).double(), "axis": -1}
    return foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu", preprocessing=steps)


def _traced() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(copy.deepcopy(NET), X)


def _scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(copy.deepcopy(NET))


def _exported() -> Any:
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(copy.deepcopy(NET), (X,), dynamic_shapes=({0: batch},)).module()


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(copy.deepcopy(NET).float(), {nn.Linear}, torch.qint8)
    return Wrapped(lambda self, x: self.parts[0](x.float()), net)


def _lstm(self: Any, x: Tensor) -> Tensor:
    return self.parts[0](x.unsqueeze(1).repeat(1, 3, 1))[0][:, -1]


def _attention(self: Any, x: Tensor) -> Tensor:
    tokens = x.unsqueeze(1).repeat(1, 3, 1)
    return self.parts[0](tokens, tokens, tokens)[0][:, 0]


#: Kinds that are the plain function: every function answers as for it, or in one sentence.
SAME: dict[str, Callable[[], Any]] = {
    "module": lambda: copy.deepcopy(NET),
    "bound method": lambda: Holder().predict,
    "lambda": lambda: lambda x: NET(x),
    "closure": lambda: _closure(copy.deepcopy(NET)),
    "partial": lambda: functools.partial(lambda net, x: net(x), copy.deepcopy(NET)),
    "object": Holder,
    "foolbox": lambda: foolbox.PyTorchModel(copy.deepcopy(NET), bounds=(0, 1), device="cpu"),
    "foolbox with preprocessing": _preprocessed,
    "data parallel": lambda: nn.DataParallel(copy.deepcopy(NET)),
    "compiled": lambda: torch.compile(copy.deepcopy(NET), backend="eager"),
    "compiled dynamic": lambda: torch.compile(copy.deepcopy(NET), backend="aot_eager", dynamic=True),
    "scripted": _scripted,
    "traced": _traced,
    "exported": _exported,
    "in place": lambda: Wrapped(_in_place),
    "relu in place": lambda: _with(lambda net: net.__setitem__(0, nn.ReLU(inplace=True))),
    "checkpoint": lambda: Wrapped(lambda self, x: ckpt.checkpoint(self.net, x, use_reentrant=False)),
    "reentrant": lambda: Wrapped(lambda self, x: ckpt.checkpoint(self.net, x, use_reentrant=True)),
    "weight norm": lambda: _normed(parametrizations.weight_norm),
    "spectral norm": lambda: _normed(parametrizations.spectral_norm),
    "keeps": Keeps,
    "batch norm": _batch_norm,
    "fixed size": lambda: Wrapped(_fixed_size),
    "squeezes": lambda: Wrapped(lambda self, x: self.net(x).squeeze()),
    "self-seeding": lambda: Wrapped(_seeded_noise),
    "frozen": lambda: _with(lambda net: net.requires_grad_(False)),
    "buffer with grad": lambda: _with(
        lambda net: net.register_buffer("b", torch.zeros(1, dtype=torch.float64, requires_grad=True))
    ),
}

#: Kinds that have no answer: every function that runs them says one sentence with these words.
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "functional dropout": (lambda: Wrapped(lambda self, x: F.dropout(self.net(x), 0.5)), "chance"),
    "stochastic depth": (
        lambda: Wrapped(lambda self, x: self.net(x) * (torch.rand(len(x), 1, dtype=x.dtype) > 0.5)),
        "chance",
    ),
    "dropout": (lambda: _dropping(nn.Dropout(0.5)), "chance"),
    "rrelu": (lambda: Wrapped(lambda self, x: self.parts[0](self.net(x) - 9), nn.RReLU(), train=True), "chance"),
    "lstm dropout": (
        lambda: Wrapped(_lstm, nn.LSTM(D, K, num_layers=2, dropout=0.5, batch_first=True), train=True),
        "chance",
    ),
    "attention dropout": (
        lambda: Wrapped(_attention, nn.MultiheadAttention(D, 1, 0.5, batch_first=True), train=True),
        "chance",
    ),
    "noise": (lambda: Wrapped(lambda self, x: self.net(x + torch.randn_like(x))), "chance"),
    "batch statistics": (lambda: _dropping(nn.BatchNorm1d(D)), "other samples"),
    "mixes": (lambda: Wrapped(lambda self, x: self.net(x - x.mean(0))), "other samples"),
    "quantised": (_quantised, "quantised"),
    "dict": (lambda: Wrapped(lambda self, x: {"logits": self.net(x)}), "returned dict"),
    "tuple": (lambda: Wrapped(lambda self, x: (self.net(x), x)), "returned tuple"),
    "model output": (lambda: Wrapped(lambda self, x: SimpleNamespace(logits=self.net(x))), "SimpleNamespace"),
    "labels": (lambda: Wrapped(lambda self, x: self.net(x).argmax(1)), "labels"),
    "nan": (lambda: Wrapped(lambda self, x: self.net(x) * torch.nan), "NaN"),
    "scalar": (lambda: Wrapped(lambda self, x: self.net(x).sum()), "shape|other samples"),
    "transposed": (lambda: Wrapped(lambda self, x: self.net(x).T), "shape|samples"),
}


def _added(model: Any, x: Tensor) -> Tensor:
    """All that is added besides the input's part; what has no visible terms says it in the residual."""
    found = homogeneous_decomposition(model, x)
    return found.bias + found.residual


def _perturbed(model: Any, x: Tensor) -> Tensor:
    return FoolboxPerturbation(model, foolbox.attacks.L2DeepFoolAttack()).perturb(x)


def _full_gradient(model: Any, x: Tensor) -> Tensor:
    """What the map sums to, with what it leaves over."""
    maps, delta = FullGradient(lambda z: model(z.flatten(1))).attribute(
        x.reshape(N, 1, 2, 3), target=0, return_convergence_delta=True
    )
    return maps.sum((1, 2, 3)) - delta


def _evaluated(model: Any, x: Tensor) -> Tensor:
    """The columns that a record shares with the functions; what stops each sample is raised."""
    records = evaluate(lambda z: model(z.double()), (x, Y))
    if records.error.notna().any():  # of a sample; what stops the run is raised by itself
        raise ValueError(f"model: {records.error[0]}")
    return torch.as_tensor(records[["linearized_robustness", "alignment", "distance"]].to_numpy(float))


#: What is computed, as one tensor.
FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "linear_analysis": lambda f, x: linear_analysis(f, x).linearized_robustness,
    "Alignment": lambda f, x: Alignment(f)(x),
    "attribute": lambda f, x: LinearizedRobustness(f).attribute(x),
    "robustness": lambda f, x: LinearizedRobustness(f).robustness(x),
    "homogeneous_decomposition": _added,
    "linearity_profile": lambda f, x: linearity_profile(f, x).margin,
    "deletion_curve": lambda f, x: deletion_curve(f, x, x.abs(), baselines=0).value,
    "adversarial_distance": lambda f, x: adversarial_distance(f, x).distance,
    "perturbation": _perturbed,
    "FullGradient": _full_gradient,
    "evaluate": _evaluated,
    "soft_labels": lambda f, x: soft_labels(f, x, temperature=2.0),
    "adversarial_examples": lambda f, x: adversarial_examples(f, x, Y, attack="pgd-l2", epsilon=0.1, steps=2),
    "LocalLipschitz": lambda f, x: LocalLipschitz(1.0)(f, x, Y),
    "JacobianRegularizer": lambda f, x: JacobianRegularizer(1.0)(f, x, Y),
}


#: What trains, where chance and the batch belong to the model, so that only malformed outputs are refused.
TRAINING = {"soft_labels", "adversarial_examples", "LocalLipschitz", "JacobianRegularizer"}

_NO_REPLICAS = "DataParallel"
#: Cells of `SAME` that have no answer, and the words of their sentence.
EXCEPTIONS: dict[tuple[str, str], str] = {
    **{("data parallel", name): _NO_REPLICAS for name in TRAINING - {"soft_labels"}},
    **{
        ("reentrant", name): "use_reentrant=True"
        for name in ("linear_analysis", "Alignment", "attribute", "robustness", "linearity_profile")
    },
    **{
        ("reentrant", name): "use_reentrant=True"
        for name in ("homogeneous_decomposition", "perturbation", "FullGradient")
    },
    ("reentrant", "evaluate"): "use_reentrant=True",
    **{("reentrant", name): "use_reentrant=True" for name in ("adversarial_distance", *TRAINING - {"soft_labels"})},
    **{
        ("fixed size", name): "AssertionError" for name in ("adversarial_distance", "evaluate")
    },  # attacks drop finished samples
}


def _cells(kinds: Any) -> list[Any]:
    """(kind, function)."""
    return [(kind, name) for kind in kinds for name in FUNCTIONS if not (_is_free(kind) and name in TRAINING)]


def _is_free(kind: str) -> bool:
    return kind in REFUSED and REFUSED[kind][1] in ("chance", "other samples")


@functools.cache
def _expected(function: str) -> Tensor:
    return FUNCTIONS[function](copy.deepcopy(NET), X.clone()).detach()


# torch's own, of a reentrant checkpoint that runs without gradients
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize(("kind", "function"), _cells(SAME))
def test_what_is_the_plain_function_gets_its_numbers(kind: str, function: str):
    model, x = SAME[kind](), X.clone()
    state = torch.get_rng_state()
    if (kind, function) in EXCEPTIONS:
        with pytest.raises((ValueError, TypeError), match=EXCEPTIONS[kind, function]):
            FUNCTIONS[function](model, x)
    else:
        rtol = 1e-4 if kind == "spectral norm" else 1e-7  # its power iterations go on
        torch.testing.assert_close(FUNCTIONS[function](model, x).detach(), _expected(function), rtol=rtol, atol=1e-9)
    assert torch.equal(x, X)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


@functools.cache
def _falls() -> Tensor:
    return _similarity(copy.deepcopy(NET))


def _similarity(model: Any) -> Tensor:
    def saliency(m: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return torch.autograd.grad(m(x).gather(1, target.unsqueeze(1)).sum(), x)[0]

    return randomization_check(model, saliency, X.clone()).similarity


#: Modules whose layers are others than the plain ones, so that other numbers are drawn for them.
_OTHER_LAYERS = {"exported", "weight norm", "batch norm"}


@pytest.mark.parametrize("kind", [kind for kind in SAME if kind not in ("in place", "relu in place", "reentrant")])
def test_randomization_check_takes_modules_with_layers(kind: str):
    model = SAME[kind]()
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        with pytest.raises(TypeError, match=r"^model: got .* expected"):
            _similarity(model)
    elif kind == "spectral norm":
        with pytest.raises(ValueError, match=r"^model: .* cannot be randomised"):
            _similarity(model)
    elif kind in _OTHER_LAYERS:
        assert (_similarity(model).min(0).values < 0.999).all()
    else:
        torch.testing.assert_close(_similarity(model), _falls())


@pytest.mark.parametrize(("kind", "function"), _cells(REFUSED))
def test_what_has_no_answer_says_so_in_a_sentence_that_names_the_argument(kind: str, function: str):
    make, words = REFUSED[kind]
    with pytest.raises((ValueError, TypeError), match=rf"^(forward_func|teacher|model)\b.*({words})"):
        FUNCTIONS[function](make(), X.clone())


#: Puts the boundary between the samples.
_OFFSET = 4 * float((NET(X)[:, 0] - NET(X)[:, 1]).sort().values[1:3].mean().detach())


def _psi(x: Tensor) -> Tensor:
    scores = NET(x)
    return 4 * (scores[:, :1] - scores[:, 1:2]) - _OFFSET


def _pair(x: Tensor) -> Tensor:
    return torch.cat([-_psi(x), _psi(x)], 1) / 2


@pytest.mark.parametrize("flat", [True, False], ids=["(N,)", "(N, 1)"])
@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - {"homogeneous_decomposition", "FullGradient"}))
def test_one_logit_is_the_two_scores_that_it_stands_for(function: str, flat: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "Y", (_psi(X).flatten() > 0).long().detach())
    found = FUNCTIONS[function](lambda x: _psi(x).squeeze(1) if flat else _psi(x), X.clone())
    torch.testing.assert_close(found, FUNCTIONS[function](_pair, X.clone()), rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:no adversarial")  # a sigmoid never changes its sign
@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - TRAINING))
@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_probabilities_are_warned_about(last: str, function: str, monkeypatch: pytest.MonkeyPatch):
    if last == "sigmoid":
        monkeypatch.setitem(globals(), "Y", Y % 2)

    def model(x: Tensor) -> Tensor:
        return NET(x).softmax(1) if last == "softmax" else _psi(x).sigmoid()

    with pytest.warns(UserWarning, match=r"forward_func: .* look like probabilities") as caught:
        FUNCTIONS[function](model, X.clone())
    assert caught


@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - TRAINING - {"deletion_curve", "adversarial_distance"}))
def test_scores_without_a_gradient_get_a_sentence(function: str):
    with pytest.raises((ValueError, TypeError), match=r"^forward_func: .*gradient"):
        FUNCTIONS[function](lambda x: NET(x.detach()), X.clone())


def _arguments(a: Tensor, b: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return NET(torch.cat([a, b], 1) + shift.unsqueeze(1)) * scale


#: With two inputs and additional arguments, as one value for each sample.
WITH_ARGUMENTS: dict[str, Callable[..., Tensor]] = {
    "linear_analysis": lambda f, x, args, n: linear_analysis(
        f, x, None, args, internal_batch_size=n
    ).linearized_robustness,
    "Alignment": lambda f, x, args, n: Alignment(f, internal_batch_size=n)(x, None, args),
    "robustness": lambda f, x, args, n: LinearizedRobustness(f, internal_batch_size=n).robustness(x, None, args),
    "homogeneous_decomposition": lambda f, x, args, n: homogeneous_decomposition(f, x, None, args).input,
    "linearity_profile": lambda f, x, args, n: linearity_profile(f, x, None, args, internal_batch_size=n).margin,
    "deletion_curve": lambda f, x, args, n: deletion_curve(
        f, x, x, None, args, baselines=0, per="value", internal_batch_size=n
    ).value,
    "adversarial_distance": lambda f, x, args, n: adversarial_distance(
        f, x, None, args, attacks=["deepfool"], bounds=(-9, 9), internal_batch_size=n
    ).distance,
}


@pytest.mark.filterwarnings("ignore:no adversarial")  # of a class that wins far and wide
@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("function", WITH_ARGUMENTS)
def test_additional_arguments_go_with_their_samples(function: str, size: int | None):
    run, x = WITH_ARGUMENTS[function], (X[:, :2], X[:, 2:])
    shift, scale = torch.linspace(0, 0.3, N).double(), torch.linspace(1, 2, K).double()
    found = run(_arguments, x, (shift, Shared(scale)), size)
    for i in range(N):
        alone = run(
            lambda a, b, own=shift[i]: _arguments(a, b, own.expand(len(a)), scale),
            tuple(part[i : i + 1] for part in x),
            None,
            None,
        )
        # The order in which ties are deleted, and how far an attack is refined, may round otherwise in another batch.
        torch.testing.assert_close(found[i : i + 1], alone, rtol=1e-6, atol=1e-9)
