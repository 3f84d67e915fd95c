"""Every kind of interval and verdict holds at its level, and finds what is there."""

import math

import pytest

from captum_alignment.metrics import LEVEL
from captum_alignment.study.cohort._claims import CLAIMS
from tests.calibration import KINDS
from tests.test_examples import ROOT

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


def test_every_claim_is_simulated_and_every_kind_has_its_row_in_the_docs():
    assert sum(kind.name.startswith("verdict: ") for kind in KINDS) == len(CLAIMS)
    page = (ROOT / "docs" / "science" / "verdicts.md").read_text("utf-8")
    table = page[page.index("| what |") :].split("\n\n")[0].splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table if line.startswith("| ")]
    assert rows == ["what", *(kind.name for kind in KINDS)]
