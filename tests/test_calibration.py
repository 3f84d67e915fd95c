"""Every kind of interval and verdict holds at its level, and finds what is there."""

import math

import pytest

from captum_alignment.metrics import LEVEL
from tests.calibration import KINDS

#: At this effect three trainings of 3 % noise are too few, or none was made.
_HARD = ("flattens", "more linear models")


@pytest.mark.parametrize("trials", [100, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_more_errors_than_the_level_allows(kind, trials):
    promised = 1 - LEVEL
    assert kind.error(trials) <= promised + 0.01 + 3 * math.sqrt(promised * (1 - promised) / trials)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.found and not any(word in k.name for word in _HARD)])
def test_what_is_there_is_found(kind):
    assert kind.power(20) > 0.75
