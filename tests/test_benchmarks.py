"""The benchmarks still run: what they measure moves, and nobody runs them with every change."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from benchmarks import bench_throughput
from captum_alignment.robust import GradientAttack

(_NAMES,) = re.findall(r"^BENCH := (.*)$", (Path(__file__).parents[1] / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", _NAMES.split())
def test_what_make_bench_runs_is_there(name):
    assert callable(importlib.import_module(f"benchmarks.bench_{name}").main)


def test_the_time_of_an_evaluation_is_taken_apart_completely():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    clock = bench_throughput.measured(net, torch.rand(6, 4), {"step": GradientAttack(steps=1)})
    assert set(clock.outside) == {*bench_throughput.PARTS, "report", "the rest"}
    assert all(seconds > 0 for seconds in clock.outside.values())
    assert clock.inside["attacks"] > 0
