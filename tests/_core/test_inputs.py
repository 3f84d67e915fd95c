import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_alignment._core._inputs import (
    as_tensors,
    batches,
    check_finite,
    check_norm,
    dual,
    flatten,
    join,
    like_inputs,
    per_sample_dot,
    per_sample_norm,
    ratio,
    unflatten,
    unit,
)

shapes = st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=3)


@given(shapes, st.integers(1, 5), st.sampled_from([1.0, 2.0, math.inf]))
def test_tuple_is_one_joint_vector(shapes, n, order):
    a = tuple(torch.randn(n, *shape, dtype=torch.float64) for shape in shapes)
    b = tuple(torch.randn_like(t) for t in a)
    joint_a, joint_b = (torch.cat([t.reshape(n, -1) for t in ts], 1) for ts in (a, b))
    torch.testing.assert_close(per_sample_dot(a, b), (joint_a * joint_b).sum(1))
    torch.testing.assert_close(per_sample_norm(a, order), joint_a.norm(order, dim=1))


@given(shapes, st.integers(1, 9), st.integers(1, 10))
def test_batches_split_and_join(shapes, n, size):
    x = tuple(torch.randn(n, *shape) for shape in shapes)
    extra = (torch.arange(n), "shared", torch.tensor(3.0))
    parts = list(batches(size, x, extra))
    assert all(len(p[0][0]) <= size for p in parts)
    for joined, t in zip(join([p[0] for p in parts]), x, strict=True):
        assert torch.equal(joined, t)
    assert torch.equal(torch.cat([p[1][0] for p in parts]), extra[0])
    assert all(p[1][1:] == extra[1:] for p in parts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_accumulate_in_float32(dtype):
    x = torch.full((1, 100_000), 0.1, dtype=dtype)
    expected = float(x[0, 0]) ** 2 * 100_000
    assert per_sample_dot((x,), (x,)).dtype == torch.float32
    assert per_sample_dot((x,), (x,)).item() == pytest.approx(expected, rel=1e-4)
    assert per_sample_norm((x,), 2).item() == pytest.approx(expected**0.5, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e-12, 1.0, 1e12, 1e30])
def test_norm_neither_underflows_nor_overflows(scale):
    v = torch.tensor([[3.0, 4.0], [1.0, 0.0]]) * scale
    torch.testing.assert_close(per_sample_norm((v,), 2) / scale, torch.tensor([5.0, 1.0]))


def test_norm_of_zero_has_zero_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(per_sample_norm((x,), 2).sum(), x)
    assert torch.equal(gradient, torch.zeros(2, 3))


def test_zero_normalises_to_zero_and_0_over_0_is_0():
    assert torch.equal(unit((torch.zeros(2, 3),), 2)[0], torch.zeros(2, 3))
    assert ratio(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0])).tolist() == [0, math.inf]


def test_dual_norms():
    assert [dual(p) for p in (1.0, 2.0, math.inf)] == [math.inf, 2, 1]


@pytest.mark.parametrize("norm", [0, 3, "2", None, True, -1])
def test_unknown_norm(norm):
    with pytest.raises(ValueError, match="norm: got"):
        check_norm(norm)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([torch.rand(2)], TypeError, "got list"),
        ((), ValueError, "empty tuple"),
        (torch.rand(0, 3), ValueError, "empty batch"),
        (torch.rand(3, 0), ValueError, r"samples without features, of shape \(3, 0\)"),
        (torch.tensor(1.0), ValueError, "0-d"),
        (torch.zeros(2, 3, dtype=torch.uint8), TypeError, "uint8"),
        ((torch.rand(2, 3), torch.rand(3, 3)), ValueError, r"\[2, 3\]"),
    ],
)
def test_inputs_that_are_not_tensors_of_samples(value, error, message):
    with pytest.raises(error, match=f"inputs: .*{message}"):
        as_tensors(value)


def test_not_finite_names_count_and_place():
    x = torch.zeros(4, 3)
    x[2, 1], x[3, 0] = math.nan, math.inf
    with pytest.raises(ValueError, match=r"2 of 4 samples .*index 2"):
        check_finite((torch.zeros(4), x), "inputs")


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_bad_internal_batch_size(size):
    with pytest.raises(ValueError, match="internal_batch_size: got"):
        list(batches(size, (torch.zeros(2, 1),)))


def test_output_is_a_tuple_for_a_tuple():
    x = torch.zeros(1)
    assert like_inputs((x,), x) is x
    assert like_inputs((x,), (x,)) == (x,)


@pytest.mark.parametrize("shape", [(0, 3, 4), (0,), (5, 3, 4), (5,)])
def test_flat_samples_come_back_also_from_an_empty_batch(shape):
    tensors = (torch.rand(shape), torch.rand(shape[0], 2))
    matrix = flatten(tensors, torch.float64)
    assert matrix.shape == (shape[0], math.prod(shape[1:]) + 2)
    assert all(map(torch.equal, unflatten(matrix, tensors), tensors))
