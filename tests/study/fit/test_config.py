from dataclasses import fields

import pytest

from captum_alignment.study.cohort import StudyConfig
from captum_alignment.study.fit import TrainingConfig


def test_every_field_has_its_help():
    for field in (*fields(TrainingConfig), *fields(StudyConfig)):
        assert field.metadata["help"], field.name


@pytest.mark.parametrize("kind", [TrainingConfig, StudyConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: got 0, expected at least 1"),
        ({"batch_size": -1}, "batch_size: got -1"),
        ({"decay_every": 0}, "decay_every: got 0"),
        ({"optimizer": "lbfgs"}, "optimizer: got 'lbfgs', expected 'adam' or 'sgd'"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"weight_decay": -1.0}, "weight_decay: got -1.0, expected a number >= 0"),
    ],
)
def test_values_out_of_range_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
