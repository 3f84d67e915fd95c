import pytest

from captum_alignment.study.load import BUILT_IN
from captum_alignment.study.roar import DEFAULTS, roar_options
from captum_alignment.study.roar._config import METHODS, PRESETS


def test_the_choices_are_attributions_that_are_made():
    for methods in (METHODS, *(preset["methods"] for preset in PRESETS.values())):
        assert set(methods) <= set(BUILT_IN)


def test_options_override_the_preset_and_the_preset_the_defaults():
    assert roar_options({}) == DEFAULTS
    found = roar_options({"preset": "zeng-cifar10", "epochs": 2})
    assert (found["epochs"], found["network"], found["modes"]) == (2, "resnet18", DEFAULTS["modes"])
    assert found["seeds"] == PRESETS["zeng-cifar10"]["seeds"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "mine"}, "--preset: got 'mine', expected 'zeng-cifar10'"),
        ({"network": "small", "model": "m.py:make"}, "--network: got 'small' beside --model"),
        ({"weights": "w.pt"}, "--weights: got it without --model"),
        ({"num_classes": 3}, "--num-classes: got it without --model"),
        ({"network": "huge"}, "--network: got 'huge', expected 'small' or"),
    ],
)
def test_options_that_exclude_each_other_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        roar_options(given)
