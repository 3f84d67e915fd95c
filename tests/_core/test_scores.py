import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from captum_alignment._core._scores import (
    as_scores,
    as_target,
    compute_scores,
    gaps,
    resolve_target,
)

SCORES = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 4.5]])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [1, 0]),
        (2, [2, 2]),
        (torch.tensor(2), [2, 2]),
        (torch.tensor([2]), [2, 2]),
        (torch.tensor([0, 2], dtype=torch.int32), [0, 2]),
        ([0, 2], [0, 2]),
        ([(0,), (2,)], [0, 2]),
        ((1,), [1, 1]),
        (np.int64(1), [1, 1]),
        (np.array([0, 2], dtype=np.uint8), [0, 2]),
        ([np.int32(0), 2], [0, 2]),
    ],
)
def test_targets_that_captum_accepts(target, expected):
    assert resolve_target(as_target(target, 2), SCORES).tolist() == expected


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (True, TypeError, "bool"),
        (1.0, TypeError, "float"),
        (torch.tensor([True, False]), TypeError, "bool"),
        (torch.tensor([0.0, 1.0]), TypeError, "float32"),
        (np.array([0.5, 1.0]), TypeError, "float64"),
        ("cat", TypeError, "'cat'"),
        ([0.5, 1], TypeError, "not integers"),
        ([0, 1, 2], ValueError, r"\(3,\)"),
        (torch.zeros(2, 2, dtype=torch.long), ValueError, r"\(2, 2\)"),
        (3, ValueError, "class 3, expected 0 to 2"),
        (-1, ValueError, "class -1, expected 0 to 2"),
    ],
)
def test_bad_targets_are_named(target, error, message):
    with pytest.raises(error, match=f"target: got .*{message}"):
        resolve_target(as_target(target, 2), SCORES)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_logit_is_that_of_the_positive_class(shape):
    psi = torch.tensor([2.0, -1.0, 0.5, 0.0]).reshape(-1, *shape[1:])
    scores = as_scores(psi, 4)
    assert scores.tolist() == [[-1, 1], [0.5, -0.5], [-0.25, 0.25], [0, 0]]
    assert scores.argmax(1).tolist() == [1, 0, 1, 0]
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    binary = F.binary_cross_entropy_with_logits(psi.flatten(), labels, reduction="none")
    torch.testing.assert_close(F.cross_entropy(scores, labels.long(), reduction="none"), binary)


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (5, 3), (2, 0)])
def test_scores_of_the_wrong_rank(shape):
    with pytest.raises(ValueError, match=r"forward_func: returned shape .* for 2 samples, expected \(2, K\)"):
        as_scores(torch.zeros(shape), 2)


def test_outputs_that_are_no_scores():
    with pytest.raises(TypeError, match=r"returned dict.*wrap the model"):
        as_scores({"logits": SCORES}, 2)
    with pytest.raises(TypeError, match="not labels"):
        as_scores(torch.tensor([1, 0]), 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite(value):
    bad = SCORES.clone()
    bad[1, 2] = value
    with pytest.raises(ValueError, match=r"1 of 2 samples \(the first at index 1\)"):
        compute_scores(lambda x: bad, (torch.rand(2, 3),))


def test_a_masked_class_is_infinitely_far():
    masked = SCORES.clone()
    masked[:, 2] = -math.inf
    scores = compute_scores(lambda x: masked, (torch.rand(2, 3),))
    assert gaps(scores, torch.tensor([1, 0])).tolist() == [[2, math.inf, math.inf], [math.inf, 1, math.inf]]


def test_gaps_of_halves_are_float32():
    assert gaps(SCORES.half(), torch.tensor([1, 0])).dtype == torch.float32
