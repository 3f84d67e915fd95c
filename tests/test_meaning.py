"""What a model's outputs mean stands in the docstring of everything that takes one."""

import inspect
from typing import Any

import pytest

from captum_alignment import attr, metrics, robust, study, training

#: Their model is not asked for scores: its features or what a wrapper passes on.
_OTHERS = {"GeneratedAttribution", "LayerInputs", "Logits"}
MEANING = "(N, K) logits, or (N,) / (N, 1): the logit of class 1"


def _takers() -> list[Any]:
    """Public functions and classes whose first argument is a model that is asked for scores."""
    found = []
    for room in (attr, metrics, robust, study, training):
        for name in room.__all__:
            value = getattr(room, name)
            error = inspect.isclass(value) and issubclass(value, Exception)
            parameters = list(inspect.signature(value).parameters) if callable(value) and not error else []
            if parameters and parameters[0] in ("forward_func", "model", "teacher") and name not in _OTHERS:
                found.append(pytest.param(value, id=f"{room.__name__.rpartition('.')[2]}.{name}"))
    return found


@pytest.mark.parametrize("value", _takers())
def test_what_takes_a_model_says_what_its_outputs_mean(value: Any):
    assert MEANING in " ".join((inspect.getdoc(value) or "").split())
