"""Training networks: which there are, in what ways they are trained, and how one is fitted and kept.

`TRAININGS` are the ways by name, `NETWORKS` the networks; `make_recipe` turns a way and its strength into what `fit`
needs beside images.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.fit._config import TrainingConfig
    from captum_alignment.study.fit._fit import EpochBar, count_correct, fit, fit_fresh
    from captum_alignment.study.fit._kept import SEED, kept
    from captum_alignment.study.fit._networks import NETWORKS, network_factory, small_network
    from captum_alignment.study.fit._recipes import Recipe
    from captum_alignment.study.fit._trainings import STANDARD, TRAININGS, make_recipe

__all__ = [
    "NETWORKS",
    "SEED",
    "STANDARD",
    "TRAININGS",
    "EpochBar",
    "Recipe",
    "TrainingConfig",
    "count_correct",
    "fit",
    "fit_fresh",
    "kept",
    "make_recipe",
    "network_factory",
    "small_network",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_config": ["TrainingConfig"],
        "_fit": ["EpochBar", "count_correct", "fit", "fit_fresh"],
        "_kept": ["SEED", "kept"],
        "_networks": ["NETWORKS", "network_factory", "small_network"],
        "_recipes": ["Recipe"],
        "_trainings": ["STANDARD", "TRAININGS", "make_recipe"],
    },
)
