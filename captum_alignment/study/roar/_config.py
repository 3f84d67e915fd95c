"""The choices of a ROAR study and its presets."""

from typing import Any

from captum_alignment.study.fit import NETWORKS

#: "roar" replaces the top fraction, "kar" keeps it and replaces the rest.
MODES = ("roar", "kar")
FRACTIONS = (0.2, 0.4, 0.6, 0.8)
#: The attributions that are compared where nothing else is said.
METHODS = ("saliency", "smoothgrad", "sobel", "random")
#: What the command does where nothing else is said: minutes on the digits.
DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "network": "small",
    "methods": METHODS,
    "fractions": FRACTIONS,
    "modes": ("roar",),
    "seeds": 3,
}
PRESETS: dict[str, dict[str, Any]] = {
    # The CIFAR-10 experiment of Zeng et al. 2021, Section 4. Epochs, decay, weight decay and augmentation are ours: the
    # paper says "step decay" and leaves the rest open.
    "zeng-cifar10": {
        "data": "cifar10",
        "network": "resnet18",
        "methods": ("saliency", "smoothgrad", "integrated-gradients", "sobel", "random"),
        "fractions": (0.2, 0.4, 0.6, 0.8),
        "seeds": 3,
        "epochs": 60,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "decay_every": 20,
        "weight_decay": 5e-4,
        "augment": True,
    }
}


def roar_options(given: dict[str, Any]) -> dict[str, Any]:
    """What was ``given``, the rest from its preset, else from the defaults.

    Raises:
        ValueError: an unknown preset, or options that exclude each other.
    """
    preset = given.get("preset")
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"--preset: got {preset!r}, expected {' or '.join(map(repr, PRESETS))}")
    for one, other in (("network", "model"), ("preset", "model")):
        if one in given and other in given:
            raise ValueError(f"--{one}: got {given[one]!r} beside --{other}, expected one of them")
    for one in ("weights", "mean", "std", "num_classes", "retrain"):
        if one in given and "model" not in given:
            raise ValueError(f"--{one.replace('_', '-')}: got it without --model")
    options = {**DEFAULTS, **PRESETS.get(preset or "", {}), **given}
    if options["network"] not in NETWORKS:
        raise ValueError(f"--network: got {options['network']!r}, expected {' or '.join(map(repr, NETWORKS))}")
    return options
