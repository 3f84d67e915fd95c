"""Two processes give the gradient of one; what would not is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

from captum_alignment import linear_analysis
from captum_alignment.metrics import median_interval
from tests.training.two_processes import REGULARIZERS, data, gradients, net

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="torch is built without gloo"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of the two processes has saved."""
    folder = tmp_path_factory.mktemp("two_processes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.two_processes", str(rank), str(folder)],
            cwd=Path(__file__).parents[2], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def one_process(make):
    model = net()
    inputs, target = data()
    (F.cross_entropy(model(inputs), target) + make()(model, inputs, target)).backward()
    return gradients(model)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_two_processes_give_the_gradient_of_one(results, name):
    expected = one_process(REGULARIZERS[name])
    for result in results:
        for step in result[name]:
            torch.testing.assert_close(step, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "name",
    [
        "term before loss",
        "static graph, term after loss",
        "static graph, term before loss",
        "own graph",
        "fabric",
        "lightning",
        "lightning, own forward",
    ],
)
def test_so_does_every_loop(results, name):
    expected = one_process(REGULARIZERS["lipschitz"])
    for result in results:
        assert len(result[name]) == 3
        for step in result[name]:
            torch.testing.assert_close(step, expected, rtol=1e-10, atol=1e-13)


def test_sharded_models_take_finite_differences(results):
    expected = one_process(REGULARIZERS["finite differences"])
    for result in results:
        reason, found = result["sharded"]
        assert "sharded parameters" in reason
        assert "method='finite-difference'" in reason
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_a_metric_counts_the_samples_of_every_process(results):
    whole = linear_analysis(net(), data()[0])
    for result in results:
        for name in ("alignment", "linearized_robustness"):
            found = [float(result["metric"][name + ending]) for ending in ("", "_low", "_high")]
            assert found == pytest.approx(median_interval(getattr(whole, name)), rel=1e-6)


NOT_AVERAGED = "DistributedDataParallel has not averaged the gradients"
STATIC = "DistributedDataParallel(static_graph=True) takes the inner gradient"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("term alone", NOT_AVERAGED),
        ("two backward passes", NOT_AVERAGED),
        ("two backward passes, static graph", NOT_AVERAGED),
        ("two backward passes, term ahead", NOT_AVERAGED),
        ("two backward passes, term ahead, static graph", NOT_AVERAGED),
        ("two backward passes, fabric", NOT_AVERAGED),
        ("two backward passes, fabric, static graph", NOT_AVERAGED),
        ("own graph, static", STATIC),
        ("lightning, static", STATIC),
    ],
)
def test_what_would_let_replicas_diverge_is_refused(results, name, sentence):
    for result in results:
        assert sentence in result["refused"][name]
