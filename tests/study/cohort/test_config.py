import pytest

from captum_alignment.study.cohort import PRESETS, StudyConfig, make_config


def test_the_default_grid_starts_unregularized_and_grows():
    config = make_config()
    assert config == StudyConfig()
    assert config.strengths[0] == 0
    assert list(config.strengths) == sorted(config.strengths)


def test_options_override_the_data_sets_defaults_and_the_preset():
    assert make_config(dataset="mnist").train_size == 10000
    assert make_config(dataset="mnist", train_size=None, epochs=2).train_size is None
    config = make_config(preset="etmann-mnist", epochs=3)
    assert (config.dataset, config.optimizer, config.decay_every, config.epochs) == ("mnist", "sgd", 80, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    assert {0.0, 1e-3, 0.1} <= set(make_config(preset=preset).strengths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "imagenet"}, "dataset: got 'imagenet', expected 'digits' or"),
        ({"preset": "mine"}, "preset: got 'mine'"),
        ({"strengths": ()}, "strengths: got none"),
        ({"strengths": (-1.0,)}, "strengths: got -1"),
        ({"strengths": (float("nan"),)}, "strengths: got nan"),
        ({"strengths": (0.1, 0.1)}, "each once"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"train_size": 0}, "train_size: got 0"),
        ({"eval_size": 1}, "eval_size: got 1, expected at least 2"),
        ({"seed": -1}, "seed: got -1"),
        ({"seeds": 0}, "seeds: got 0"),
        ({"attacks": ()}, "attacks: got none"),
        ({"attacks": ("magic",)}, "attacks: got 'magic'"),
        ({"attacks": ("ead",)}, "attacks: 'ead' exists in norm 1"),
        ({"attacks": ("ddn", "ddn")}, "each once"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_config(**options)
