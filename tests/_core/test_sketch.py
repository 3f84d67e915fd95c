"""The sketch finds the minimum that the loop over all classes finds."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from captum_alignment import LinearizedRobustness, linear_analysis
from captum_alignment._core import _nearest, _sketch
from captum_alignment._core._gradients import ScoreGraph
from tests.nets import assert_unchanged, count_forward_passes, snapshot

NORMS = [2, math.inf]


def wide(k=300, dtype=torch.float64, d=40):
    """Many classes over a small trunk, as a real head has: most gradients share a few directions."""
    net = nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, k))
    return net.to(dtype).eval()


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = wide(d=10)

    def forward(self, a, b, shift):
        return self.net(torch.cat([a, b.flatten(1)], 1)) + shift


@pytest.fixture
def loop(monkeypatch):
    """Calls a function with the plain loop over classes in place of the sketch."""

    def run(function):
        with monkeypatch.context() as patch:
            patch.setattr(_nearest, "LOOP_RIVALS", 10**9)
            return function()

    return run


def assert_same(found, exact):
    assert torch.equal(found.rival, exact.rival)
    torch.testing.assert_close(found.linearized_robustness, exact.linearized_robustness)
    torch.testing.assert_close(found.binarized_gradient, exact.binarized_gradient)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_loop_with_far_fewer_passes(norm, dtype, loop):
    net, x = wide(dtype=dtype), torch.randn(20, 40, dtype=dtype)
    found, exact = linear_analysis(net, x, norm=norm), loop(lambda: linear_analysis(net, x, norm=norm))
    assert_same(found, exact)
    assert (exact.model_passes == 301).all()
    assert found.model_passes.double().mean() < 75
    method = LinearizedRobustness(net, norm=norm, internal_batch_size=7)
    torch.testing.assert_close(method.robustness(x), exact.linearized_robustness)


def test_l_1_is_the_loop():
    net, x = wide(k=80), torch.randn(2, 40, dtype=torch.float64)
    assert (linear_analysis(net, x, norm=1).model_passes == 81).all()


def test_bfloat16_agrees_where_bfloat16_can(loop):
    net, x = wide(dtype=torch.bfloat16), torch.randn(20, 40).bfloat16()
    found, exact = linear_analysis(net, x), loop(lambda: linear_analysis(net, x))
    torch.testing.assert_close(found.linearized_robustness, exact.linearized_robustness, rtol=0.05, atol=0)


def test_model_passes_are_counted_truly():
    net, x = wide(), torch.randn(1, 40, dtype=torch.float64)
    seen = {"backward": 0}

    forwards: list[str] = []
    count_forward_passes(net, forwards)
    net[0].register_full_backward_hook(lambda *_: seen.__setitem__("backward", seen["backward"] + 1))
    # Directions are dual numbers in vmapped forward passes: each look counts its directions, not its calls.
    looks = []
    original = _sketch.SketchSearch._derivatives
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _sketch.SketchSearch, "_derivatives", lambda s, i, d: looks.append(d.shape[2]) or original(s, i, d)
        )
        result = linear_analysis(net, x)
    calls = sum(-(-c // 16) for c in looks)
    assert result.model_passes.item() == (len(forwards) - calls) + seen["backward"] + sum(looks)


@pytest.mark.parametrize("norm", NORMS)
def test_targets_that_are_not_the_top_class(norm, loop):
    net, x = wide(), torch.randn(12, 40, dtype=torch.float64)
    target = net(x).argsort(1, descending=True)[
        torch.arange(12), torch.tensor([0, 1, 5, 100, 299, 0, 2, 0, 0, 1, 0, 9])
    ]
    found, exact = (f(lambda: linear_analysis(net, x, target, norm=norm)) for f in (lambda f: f(), loop))
    assert_same(found, exact)
    assert ((found.linearized_robustness < 0) == (target != net(x).argmax(1))).all()


def test_ties_and_masked_classes(loop):
    net, x = wide(), torch.randn(6, 40, dtype=torch.float64)

    x[:3, 0], x[3:, 0] = 1, -1

    def with_ties(x):
        scores = net(x)
        lead = torch.zeros(300, dtype=torch.float64).index_fill(0, torch.tensor([7, 8]), 100)
        scores = scores.index_copy(1, torch.tensor([8]), scores[:, 7:8]) + lead * (x[:, :1] > 0)
        return scores.index_fill(1, torch.arange(200, 260), -math.inf)

    found, exact = linear_analysis(with_ties, x), loop(lambda: linear_analysis(with_ties, x))
    assert_same(found, exact)
    assert (found.linearized_robustness[:3] == 0).all()
    assert found.model_passes[:3].max() <= 4


def test_candidates(loop):
    net, x = wide(), torch.randn(8, 40, dtype=torch.float64)
    found, exact = linear_analysis(net, x, candidates=100), loop(lambda: linear_analysis(net, x, candidates=100))
    assert_same(found, exact)
    few = linear_analysis(net, x, candidates=5)
    assert (few.model_passes == 7).all()


def test_tuple_inputs_and_per_sample_arguments(loop):
    net = TwoParts()
    x = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 2, 3, dtype=torch.float64)
    shift = torch.randn(9, 300, dtype=torch.float64)
    found, exact = linear_analysis(net, x, None, shift), loop(lambda: linear_analysis(net, x, None, shift))
    assert_same(found, exact)


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return 2 * grad


class NoSecondDerivative(NoForwardMode):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return 2 * grad


@pytest.mark.parametrize(("function", "most"), [(NoForwardMode, 100), (NoSecondDerivative, 10_000)])
def test_fallbacks_where_an_operation_lacks_derivatives(function, most, loop):
    net, x = wide(), torch.randn(5, 40, dtype=torch.float64)

    def forward(x):
        return net(function.apply(x))

    found, exact = linear_analysis(forward, x), loop(lambda: linear_analysis(forward, x))
    assert_same(found, exact)
    assert found.model_passes.max() < most


def test_attention_has_no_derivative_forward_by_its_fast_kernels_and_is_sketched_all_the_same(loop):
    torch.manual_seed(0)
    net: Any = VisionTransformer(16, 8, 2, 2, 32, 64, num_classes=200).eval()
    nn.init.normal_(net.heads.head.weight)
    x, fast = torch.rand(3, 3, 16, 16), torch.backends.mha.get_fastpath_enabled()
    found, exact = linear_analysis(net, x), loop(lambda: linear_analysis(net, x))
    assert found.model_passes.max() < 60
    assert torch.equal(found.rival, exact.rival)
    torch.testing.assert_close(found.linearized_robustness, exact.linearized_robustness, rtol=1e-4, atol=1e-6)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.backends.cuda.flash_sdp_enabled()


def test_memory_does_not_grow_with_samples_times_classes(monkeypatch):
    k, n, sizes = 21_843, 6, []
    monkeypatch.setattr(_nearest, "_SEARCH_SCORES", (2**16, 2**16))

    class Search(_sketch.SketchSearch):
        def _derivatives(self, samples, directions):
            sizes.append(len(samples) * self.gap.shape[1])
            return super()._derivatives(samples, directions)

    monkeypatch.setattr(_nearest, "SketchSearch", Search)
    net, x = nn.Linear(64, k).double(), torch.rand(n, 64, dtype=torch.float64)
    found = linear_analysis(net, x)
    assert max(sizes) <= 2**16 < n * k
    with torch.no_grad():
        scores, target = net(x), net(x).argmax(1)
        gaps = (scores.gather(1, target.unsqueeze(1)) - scores).scatter(1, target.unsqueeze(1), math.inf)
        ratios = gaps / torch.cdist(net.weight[target], net.weight)
    torch.testing.assert_close(found.linearized_robustness, ratios.amin(1))
    assert torch.equal(found.rival, ratios.argmin(1))
    assert found.model_passes.double().mean() < 100


def test_reproducible_through_generator():
    net, x = wide(), torch.randn(6, 40, dtype=torch.float64)

    def passes(seed=None):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return linear_analysis(net, x, generator=generator).model_passes.tolist()

    state = torch.get_rng_state()
    assert passes() == passes()
    assert passes(1) == passes(1)
    assert any(passes(seed) != passes() for seed in range(5))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_grad_mode_and_nothing_mutated(mode):
    net = wide()
    before = snapshot(net)
    with mode():
        x = torch.randn(3, 40, dtype=torch.float64)
        found = linear_analysis(net, x)
    assert_unchanged(net, before)
    assert torch.equal(found.rival, linear_analysis(net, x.clone()).rival)


RATIOS = {
    "equal": lambda norms, chance: torch.ones_like(norms),
    "equal gaps": lambda norms, chance: 1 / norms,
    "nearly equal": lambda norms, chance: 1 + 1e-6 * chance,
    "half near": lambda norms, chance: 1 + chance * torch.linspace(0, 8, norms.shape[1]).floor().clamp(max=4),
    "one dominates": lambda norms, chance: (1 + chance).index_fill(1, torch.tensor([30]), 1e-3),
    "one hides": lambda norms, chance: (1 / norms).index_fill(1, torch.tensor([30]), 1e-3),
    "spread": lambda norms, chance: 1 + 3 * chance,
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("ratios", RATIOS)
def test_never_more_than_five_passes_beyond_the_loop(norm, ratios):
    n, k, d = 12, 66, 20
    maps = torch.randn(n, k, d, dtype=torch.float64)
    norms = torch.linalg.vector_norm(maps[:, :1] - maps[:, 1:], 2 if norm == 2 else 1, dim=2)
    wanted = RATIOS[ratios](norms, torch.rand(n, k - 1, dtype=torch.float64))
    offsets = torch.cat([torch.zeros(n, 1, dtype=torch.float64), -wanted * norms], 1)

    def forward(x, maps, offsets):
        return (maps @ x.unsqueeze(2)).squeeze(2) + offsets

    found = linear_analysis(forward, torch.zeros(n, d, dtype=torch.float64), None, (maps, offsets), norm=norm)
    torch.testing.assert_close(found.linearized_robustness, wanted.amin(1))
    assert (found.model_passes <= k + 1 + 5).all()


def shared_direction(n, k, d):
    """Linear scores of n samples at 0, each with a map (K, D) and gaps of its own; all gradients share a direction."""
    maps = torch.randn(n, k, d, dtype=torch.float64) + 5 * torch.randn(n, 1, d, dtype=torch.float64)
    offsets = (torch.rand(n, k, dtype=torch.float64) + 0.05).index_fill(1, torch.tensor([0]), 0)
    x = torch.zeros(n, d, dtype=torch.float64)
    graph = ScoreGraph(lambda x, maps, offsets: (maps @ x.unsqueeze(2)).squeeze(2) - offsets, (x,), (maps, offsets))
    ratios = offsets[:, 1:] / (maps[:, :1] - maps[:, 1:]).norm(dim=2)
    return graph, torch.zeros(n, dtype=torch.long), ratios


def missed(n, generator=None):
    """Of n samples with 119 rivals, the share whose minimum is not found, nor a smaller one."""
    graph, target, ratios = shared_direction(n, 120, 12)
    found = _nearest.nearest_rival(graph, target, 2, generator=generator).distance
    assert (found >= ratios.amin(1) * (1 - 1e-9)).all()
    return (found > ratios.amin(1) * (1 + 1e-9)).double().mean().item()


def test_bounds_hold_at_their_stated_level(monkeypatch):
    """With a failure probability of 0.3 per sample wrong minima do occur, and no more often than stated."""
    assert missed(400) == 0
    monkeypatch.setattr(_sketch, "FAILURE", 0.3)
    assert 0 < missed(400) <= 0.3


@pytest.mark.slow
def test_failure_probability_over_20000_draws(monkeypatch):
    """What a look may miss by chance, it misses as often as stated: the bound of a class falls below its norm."""
    monkeypatch.setattr(_sketch, "FAILURE", 0.3)
    generator = torch.Generator().manual_seed(0)
    assert 0 < sum(missed(2000, generator) for _ in range(10)) / 10 <= 0.3
    below = torch.zeros(len(_sketch.LOOKS), dtype=torch.float64)
    for _ in range(10):
        graph, target, _ = shared_direction(2000, 70, 12)
        gap = -graph.scores.detach().index_fill(1, torch.tensor([0]), -math.inf)
        search = _sketch.SketchSearch(graph, target, gap, 2, generator)
        norms = (graph.gradient(graph.one_hot(target))[0] - graph.gradient(graph.one_hot(target + 1))[0]).norm(dim=1)
        for i, (looks, quantile) in enumerate(zip(_sketch.LOOKS, _sketch._quantiles(), strict=True)):
            if i:
                search._look(list(range(2000)), looks)
            bound = search.along[:, 1].square() + search.outside[:, 1] / quantile
            below[i] += (bound < norms.square()).sum() / 20000
    stated = 0.3 * torch.tensor(_sketch._SHARES, dtype=torch.float64)
    assert ((below - stated).abs() <= 4 * (stated / 20000).sqrt()).all()


@pytest.mark.slow
def test_imagenet_photographs(zoo, photographs, loop):
    net = zoo.load("imagenet_squeezenet")
    found = linear_analysis(net, photographs, internal_batch_size=4)
    assert found.model_passes.double().mean() <= 50
    part = photographs[:2].double()
    net = net.double()
    assert_same(linear_analysis(net, part), loop(lambda: linear_analysis(net, part)))


@pytest.mark.slow
def test_500_images_of_32_pixels_and_1000_classes(zoo, shared, loop):
    """A trained trunk under a nearest-prototype head: class j is one of 1000 training images in feature space."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    data = ImageFolder(shared / "data" / "cifar10_jpeg" / "test", transform)
    images = torch.stack([data[int(i)][0] for i in torch.randperm(len(data))[:1500]]).double()
    normalize, layers = zoo.load("cifar_sgd").double()
    trunk = nn.Sequential(normalize, *layers[:-1])
    with torch.no_grad():
        prototypes = trunk(images[:1000])
    head = nn.Linear(prototypes.shape[1], 1000, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(prototypes)
        head.bias.copy_(-prototypes.square().sum(1) / 2)
    net = nn.Sequential(trunk, head).eval()
    x = images[1000:]
    found = linear_analysis(net, x)
    assert found.model_passes.double().mean() <= 50
    exact = loop(lambda: linear_analysis(net, x, internal_batch_size=100))
    torch.testing.assert_close(found.linearized_robustness, exact.linearized_robustness)
