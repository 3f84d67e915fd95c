"""The options of ``study``; what it does with them is in `test_main`."""

from typing import Any

import pytest

from captum_alignment.study import StudyConfig, make_config
from captum_alignment.study.cli import main
from captum_alignment.study.cli._main import _parser
from captum_alignment.study.cli._options import chosen


def parsed(*words: str) -> dict[str, Any]:
    return chosen(StudyConfig, vars(_parser().parse_args(["study", "--out", "x", *words])))


def test_every_field_of_a_study_has_an_option():
    words = "--data mnist --regularizer trades --strengths 0 1 --epochs 3 --train-size all --eval-size 50 "
    words += "--attacks fast --seed 4 --seeds 2 --batch-size 20 --optimizer sgd --learning-rate 0.1 --decay-every 2 "
    words += "--weight-decay 0.01 --augment"
    found = parsed(*words.split())
    assert set(found) == set(StudyConfig.__dataclass_fields__)
    (found["regularizer"],) = found["regularizer"]
    config = make_config(**found)
    assert (config.dataset, config.train_size, config.strengths, config.augment) == ("mnist", None, (0.0, 1.0), True)


def test_the_old_word_for_the_data_is_taken():
    assert parsed("--dataset", "cifar10") == parsed("--data", "cifar10") == {"dataset": "cifar10"}


@pytest.mark.parametrize("command", ["evaluate", "report", "study", "roar", "supplement"])
def test_the_help_of_every_command_has_an_example_that_can_be_read(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    example = text.split("example:\n")[1].split()
    assert example[:2] == ["captum-alignment", command]
    assert _parser().parse_args(example[1:]).run
