import inspect
from dataclasses import fields

import pytest

from captum_alignment.study import evaluate
from captum_alignment.study.evaluation import EvaluationConfig


def test_evaluate_takes_every_field_with_the_same_default():
    parameters = inspect.signature(evaluate).parameters
    for field in fields(EvaluationConfig):
        assert parameters[field.name].default == field.default, field.name
        assert field.metadata["help"], field.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": 3}, "norm: got 3"),
        ({"bounds": (1, 0)}, r"bounds: got \(1, 0\), expected \(min, max\) with min < max"),
        ({"precision": "int8"}, "precision: got 'int8'"),
        ({"part_size": 0}, "part_size: got 0"),
        ({"batch_size": True}, "batch_size: got True"),
        ({"batch_size": "large"}, "batch_size: got 'large'"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**options)
