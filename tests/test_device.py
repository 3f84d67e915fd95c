"""On an accelerator: the same results, nothing of two devices mixed, and few moments at which the host waits for it.

There is no accelerator here, so one is pretended: see `tests.elsewhere`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

from tests.device_checks import ATTACKS, CHECKS, REGULARIZERS

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)

NONE = [
    "alignment",
    "alignment, l_inf",
    "alignment_null",
    "rank_correlation",
    "relevance_mass_accuracy",
    "pointing_game",
    "jacobian_penalty",
]
ONCE = [name for name in CHECKS if "_penalty" in name or name.partition(",")[0] in REGULARIZERS]
FIVE_TIMES = [
    *(name for name in CHECKS if name.startswith("linear_analysis")),
    *("LinearizedRobustness", "Alignment"),
]
PER_STEP = ["adversarial_examples", "thorough", *(name for name in CHECKS if name.partition(",")[0] in ATTACKS)]


@pytest.fixture(scope="session")
def found():
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.elsewhere"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULTS ")]
    assert lines, done.stderr
    return json.loads(lines[0].removeprefix("RESULTS "))


@pytest.mark.parametrize("name", CHECKS)
def test_runs_and_agrees_with_the_cpu(name, found):
    result = found[name]
    assert "error" not in result, result["error"]
    assert result["finite"]
    assert result["same"]
    assert result["strayed"] == 0  # nothing comes back on the CPU


@pytest.mark.parametrize(
    ("name", "most"),
    [*((name, 0) for name in NONE), *((name, 1) for name in ONCE), *((name, 5) for name in FIVE_TIMES)],
)
def test_the_host_waits_seldom(name, most, found):
    assert found[name]["waits"] <= most, found[name]["where"]


@pytest.mark.parametrize("name", [name for name in CHECKS if name.startswith("RegularizationCallback")])
def test_a_callback_waits_for_its_term_and_for_the_question_whether_it_is_finite(name, found):
    assert found[name]["waits"] <= 2, found[name]["where"]


@pytest.mark.parametrize("name", [name for name in CHECKS if name.startswith("sketch")])
def test_the_sketch_waits_once_a_round_and_not_once_a_class(name, found):
    assert found[name]["waits"] <= 50, found[name]["where"]  # of 199 rivals


@pytest.mark.parametrize("name", ["evaluate", "EvaluationCallback"])
def test_the_host_waits_no_more_for_three_times_the_samples(name, found):
    few, many = (found[f"{name}, {copies} copies"] for copies in (1, 3))
    assert few["waits"] == many["waits"] > 0, (few["where"], many["where"])
    assert few["calls"] == many["calls"]


@pytest.mark.parametrize("name", PER_STEP)
def test_the_host_waits_at_most_three_times_per_step(name, found):
    assert found[name]["waits"] <= 3 * found[name]["calls"], found[name]["where"]


def test_waits_are_seen(found):
    """The verification of what an attack returns has to wait: that it is counted shows that the counter works."""
    where = found["thorough"]["where"]
    assert any("_verified.py" in place and "nonzero" in place for place in where)
    assert any("index" in place for place in where)
