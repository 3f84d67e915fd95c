"""Captum's private names that the adapter relies on, pinned."""

import inspect

import captum

from captum_alignment._core import _captum


def test_log_usage_leaves_the_function_reachable():
    def method():
        return 1

    assert inspect.unwrap(_captum.log_usage()(method)) is method
    assert tuple(map(int, captum.__version__.split(".")[:2])) >= (0, 9)
