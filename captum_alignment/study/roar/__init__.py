"""ROAR and KAR: retraining without the features that an attribution ranks highest, or with nothing else.

`remove_and_retrain` attributes, removes, retrains, tests and reports; `areas` sums up its cells.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.roar._config import DEFAULTS, METHODS, MODES, PRESETS, roar_options
    from captum_alignment.study.roar._roar import MODEL, remove_and_retrain
    from captum_alignment.study.roar._summary import areas, groups

__all__ = [
    "DEFAULTS",
    "METHODS",
    "MODEL",
    "MODES",
    "PRESETS",
    "areas",
    "groups",
    "remove_and_retrain",
    "roar_options",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_config": ["DEFAULTS", "METHODS", "MODES", "PRESETS", "roar_options"],
        "_roar": ["MODEL", "remove_and_retrain"],
        "_summary": ["areas", "groups"],
    },
)
