import math

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_alignment import Alignment, alignment
from captum_alignment.metrics import alignment_null, alignment_null_of_maps, median_interval
from tests import literal
from tests.nets import TwoInputs, cnn, count_forward_passes, images, mlp, two_inputs

NORMS = [1, 2, math.inf]
DUAL = {1: math.inf, 2: 2, math.inf: 1}


@pytest.mark.parametrize("norm", NORMS)
def test_is_the_definition(norm):
    x, a = torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    expected = [abs(float((u * v).sum())) / float(v.reshape(-1).norm(DUAL[norm])) for u, v in zip(x, a, strict=True)]
    torch.testing.assert_close(alignment(x, a, norm=norm), torch.tensor(expected, dtype=torch.float64))
    sizes = torch.stack([u.reshape(-1).norm(norm) for u in x])
    normalized = alignment(x, a, norm=norm, normalize=True)
    torch.testing.assert_close(normalized, torch.tensor(expected, dtype=torch.float64) / sizes)
    assert (normalized <= 1 + 1e-12).all()


@pytest.mark.parametrize("method", [Saliency, InputXGradient, IntegratedGradients])
def test_takes_the_output_of_captum_methods_for_tensor_and_tuple(method):
    net, inputs = TwoInputs(), two_inputs()
    inputs = tuple(t.requires_grad_() for t in inputs)
    maps = method(net).attribute(inputs, target=0)
    joint = alignment(torch.cat([t.flatten(1) for t in inputs], 1), torch.cat([m.flatten(1) for m in maps], 1))
    torch.testing.assert_close(alignment(inputs, maps), joint)


@given(st.integers(1, 6), st.floats(1e-6, 1e6), st.sampled_from(NORMS))
def test_scale_permutation_and_batch_split(n, scale, norm):
    x, a = torch.randn(n, 7, dtype=torch.float64), torch.randn(n, 7, dtype=torch.float64)
    whole = alignment(x, a, norm=norm)
    torch.testing.assert_close(alignment(x, -scale * a, norm=norm), whole)
    torch.testing.assert_close(alignment(scale * x, a, norm=norm), scale * whole)
    order = torch.randperm(n)
    torch.testing.assert_close(alignment(x[order], a[order], norm=norm), whole[order])
    torch.testing.assert_close(torch.cat([alignment(x[i : i + 1], a[i : i + 1], norm=norm) for i in range(n)]), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    x, a = torch.rand(3, 50_000, dtype=torch.float64).to(dtype), torch.rand(3, 50_000, dtype=torch.float64).to(dtype)
    got = alignment(x, a)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got.double(), alignment(x.double(), a.double()), rtol=1e-4, atol=0)


def test_zero_map_is_0_and_nan_stays_nan():
    x = torch.ones(3, 2)
    a = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [1.0, 0.0]])
    got = alignment(x, a)
    assert got[0] == 0
    assert got[1].isnan()
    assert got[2] == 1
    assert alignment(torch.zeros(1, 2), torch.ones(1, 2), normalize=True) == 0


def test_gradient_of_a_saturated_softmax_keeps_its_direction():
    a = torch.tensor([[3.0, 4.0]]) * 1e-30
    torch.testing.assert_close(alignment(torch.tensor([[1.0, 1.0]]), a), torch.tensor([1.4]))


def test_bad_input_is_named():
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="attributions: got shapes"):
        alignment(x, torch.rand(2, 4))
    with pytest.raises(ValueError, match="attributions: got shapes"):
        alignment((x, x), x)
    with pytest.raises(TypeError, match="attributions: got ndarray"):
        alignment(x, x.numpy())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="norm: got 3"):
        alignment(x, x, norm=3)


@pytest.mark.parametrize("norm", NORMS)
def test_alpha_of_a_model_is_the_literal_one(norm):
    net, x = cnn(), images()
    expected = [row["alignment"] for row in literal.analyse(net, (x,), norm=norm)]
    torch.testing.assert_close(Alignment(net, norm=norm)(x), torch.tensor(expected, dtype=torch.float64))
    target = torch.arange(8) % 5
    expected = [row["alignment"] for row in literal.analyse(net, (x,), target, norm)]
    torch.testing.assert_close(Alignment(net, norm=norm)(x, target), torch.tensor(expected, dtype=torch.float64))


def test_alpha_takes_one_forward_and_one_backward_pass():
    net, calls = mlp(), []
    count_forward_passes(net, calls)
    net[1].register_full_backward_hook(lambda *_: calls.append("backward"))
    Alignment(net)(torch.rand(3, 6, dtype=torch.float64))
    assert calls == ["forward", "backward"]


def test_null_is_the_gram_matrix():
    x, a = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(6, 2, 3, dtype=torch.float64)
    gram = torch.stack([alignment(u.expand_as(a), a) for u in x])
    result = alignment_null(x, a)
    others = [gram[i][torch.arange(6) != i] for i in range(6)]
    torch.testing.assert_close(result.alignment, gram.diagonal())
    torch.testing.assert_close(result.null, torch.stack([o.mean() for o in others]))
    torch.testing.assert_close(result.excess, result.alignment - result.null)
    expected = torch.stack([(o < gram[i, i]).double().mean() for i, o in enumerate(others)])
    torch.testing.assert_close(result.rank, expected)


def test_null_in_blocks(monkeypatch):
    x, a = torch.randn(11, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    whole = alignment_null(x, a)
    monkeypatch.setattr("captum_alignment.metrics._alignment._NULL_ROWS", 4)
    for u, v in zip(alignment_null(x, a), whole, strict=True):
        torch.testing.assert_close(u, v)


def test_equal_maps_are_chance_and_own_inputs_are_best():
    x = torch.rand(9, 4)
    same = alignment_null(x, torch.ones(9, 4))
    torch.testing.assert_close(same.excess, torch.zeros(9), atol=1e-6, rtol=0)
    assert (same.rank == 0.5).all()
    assert (alignment_null(x, x).rank == 1).all()


def test_null_of_one_sample_is_nan():
    result = alignment_null(torch.rand(1, 3), torch.rand(1, 3))
    assert result.alignment.isfinite().all()
    assert all(part.isnan().all() for part in result[1:])


def test_binary_scores():
    line = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    x = torch.randn(5, 4, dtype=torch.float64)
    # Bias-free and one signed score: alpha is the distance to the boundary.
    expected = (line(x) / line.weight.norm()).abs().flatten()
    torch.testing.assert_close(Alignment(line)(x), expected.detach())
    torch.testing.assert_close(Alignment(lambda x: line(x).flatten())(x), expected.detach())


def test_batches_of_the_class_have_the_alignment_of_the_whole():
    net, x = mlp(), torch.rand(7, 6, dtype=torch.float64)
    torch.testing.assert_close(Alignment(net, internal_batch_size=3)(x), Alignment(net)(x), rtol=1e-12, atol=0)


def test_integer_images_and_one_map_for_all_channels():
    x, a = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8), torch.randn(4, 1, 5, 5)
    expected = alignment(x.double(), a.double().repeat(1, 3, 1, 1))
    torch.testing.assert_close(alignment(x, a).double(), expected, rtol=1e-4, atol=1e-3)


def test_the_null_of_maps_is_the_mean_of_a_column(monkeypatch):
    x, a = torch.randn(7, 2, 3, dtype=torch.float64), torch.randn(7, 2, 3, dtype=torch.float64)
    expected = [sum(float(alignment(x[i : i + 1], a[k : k + 1])) for i in range(7) if i != k) / 6 for k in range(7)]
    torch.testing.assert_close(alignment_null_of_maps(x, a), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(alignment_null_of_maps(x, a).mean(), alignment_null(x, a).null.mean())
    monkeypatch.setattr("captum_alignment.metrics._alignment._NULL_ROWS", 3)
    torch.testing.assert_close(alignment_null_of_maps(x, a), torch.tensor(expected, dtype=torch.float64))
    assert alignment_null_of_maps(x[:1], a[:1]).isnan().all()


def shared_by(null, of_maps):
    return null.median() * (of_maps / of_maps.mean() - 1)


def coverage(n: int, trials: int, sign: int, seed: int = 0) -> tuple[float, float]:
    """How often the interval of the median chance level (sign 1) or excess (-1) covers that of the whole population.

    With and without what the samples share.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3000, 20, generator=generator) * torch.rand(3000, 1, generator=generator).add(0.5)
    a = torch.randn(3000, 20, generator=generator) + torch.randn(3000, 1, generator=generator) + 0.05 * x

    def values(found):
        return found.null if sign > 0 else found.excess

    truth, hits = float(values(alignment_null(x, a)).median()), [0, 0]
    for _ in range(trials):
        drawn = torch.randperm(3000, generator=generator)[:n]
        found = alignment_null(x[drawn], a[drawn])
        shared = sign * shared_by(found.null, alignment_null_of_maps(x[drawn], a[drawn]))
        for k, s in enumerate((shared, None)):
            _, low, high = median_interval(values(found), s)
            hits[k] += low <= truth <= high
    return hits[0] / trials, hits[1] / trials


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("n", "trials"), [(60, 300), pytest.param(200, 4000, marks=pytest.mark.slow)])
def test_the_interval_of_the_chance_level_covers_what_it_says(n, trials, sign):
    covered, alone = coverage(n, trials, sign)
    spread = 3 * math.sqrt(0.95 * 0.05 / trials)
    assert 0.94 - spread < covered < 0.96 + spread
    assert sign < 0 or alone < 0.92  # as if every null were of its sample alone
