"""Captum's private names that the adapter relies on, pinned."""

import inspect

import captum
import torch
from captum._utils.common import _run_forward

from captum_alignment._core import _captum


def test_run_forward_calls_the_function_with_inputs_then_extras():
    assert list(inspect.signature(_run_forward).parameters) == [
        "forward_func",
        "inputs",
        "target",
        "additional_forward_args",
    ]
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    got = _captum.run_forward(lambda a, b, c, d: a + b + c + d, (x, y), None, (1, 2))
    torch.testing.assert_close(got, x + y + 3)


def test_log_usage_leaves_the_function_reachable():
    def method():
        return 1

    assert _captum.log_usage()(method).__wrapped__ is method
    assert tuple(map(int, captum.__version__.split(".")[:2])) >= (0, 9)
