"""A study: networks trained in growing strength, evaluated on the same samples, and the paper's claims about them.

`make_config` fills in what was not said, `run_study` trains, evaluates, judges and reports, `run_methods` compares
several ways of training.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.cohort._claims import Verdict
    from captum_alignment.study.cohort._config import DATASETS, PRESETS, StudyConfig, make_config
    from captum_alignment.study.cohort._methods_study import run_methods
    from captum_alignment.study.cohort._study import StudyResult, run_study

__all__ = [
    "DATASETS",
    "PRESETS",
    "StudyConfig",
    "StudyResult",
    "Verdict",
    "make_config",
    "run_methods",
    "run_study",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_claims": ["Verdict"],
        "_config": ["DATASETS", "PRESETS", "StudyConfig", "make_config"],
        "_methods_study": ["run_methods"],
        "_study": ["StudyResult", "run_study"],
    },
)
