"""Training networks: which there are, in what ways they are trained, and how one is fitted and kept.

`TRAININGS` are the ways by name, `NETWORKS` the networks; `make_recipe` turns a way and its strength into what `fit`
needs beside images.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.fit._config import Retraining, Training
    from captum_alignment.study.fit._fit import Diverged, EpochBar, Recipe, count_correct, fit, fit_fresh
    from captum_alignment.study.fit._kept import SEED, trained
    from captum_alignment.study.fit._networks import LAYERS, NETWORKS, SmallNet, network_factory
    from captum_alignment.study.fit._recipes import make_recipe
    from captum_alignment.study.fit._trainings import TRAININGS

__all__ = [
    "LAYERS",
    "NETWORKS",
    "SEED",
    "TRAININGS",
    "Diverged",
    "EpochBar",
    "Recipe",
    "Retraining",
    "SmallNet",
    "Training",
    "count_correct",
    "fit",
    "fit_fresh",
    "make_recipe",
    "network_factory",
    "trained",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_config": ["Retraining", "Training"],
        "_fit": ["Diverged", "EpochBar", "Recipe", "count_correct", "fit", "fit_fresh"],
        "_kept": ["SEED", "trained"],
        "_networks": ["LAYERS", "NETWORKS", "SmallNet", "network_factory"],
        "_recipes": ["make_recipe"],
        "_trainings": ["TRAININGS"],
    },
)
