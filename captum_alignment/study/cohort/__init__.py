"""A study: networks trained in growing strength, evaluated on the same samples, and the paper's claims about them.

`make_config` fills in what was not said, `run_study` trains, evaluates, judges and reports. What builds on a study
reads it by `read_study`, or has networks of its own: `make_members`, `train_members`, `evaluate_members`.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.cohort._claims import Verdict
    from captum_alignment.study.cohort._config import DATASETS, PRESETS, StudyConfig, make_config
    from captum_alignment.study.cohort._evaluate import evaluate_members
    from captum_alignment.study.cohort._members import Member, make_members
    from captum_alignment.study.cohort._report import StudyResult
    from captum_alignment.study.cohort._study import read_study, run_study
    from captum_alignment.study.cohort._train import load_network, train_members

__all__ = [
    "DATASETS",
    "PRESETS",
    "Member",
    "StudyConfig",
    "StudyResult",
    "Verdict",
    "evaluate_members",
    "load_network",
    "make_config",
    "make_members",
    "read_study",
    "run_study",
    "train_members",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_claims": ["Verdict"],
        "_config": ["DATASETS", "PRESETS", "StudyConfig", "make_config"],
        "_evaluate": ["evaluate_members"],
        "_members": ["Member", "make_members"],
        "_report": ["StudyResult"],
        "_study": ["read_study", "run_study"],
        "_train": ["load_network", "train_members"],
    },
)
