"""Captum's private names that the adapter relies on, pinned."""

import captum

from captum_alignment._core import _captum


def test_log_usage_leaves_the_function_reachable():
    def method():
        return 1

    assert _captum.log_usage()(method).__wrapped__ is method
    assert tuple(map(int, captum.__version__.split(".")[:2])) >= (0, 9)
