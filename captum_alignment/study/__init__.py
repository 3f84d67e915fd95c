"""The application: train and measure cohorts of models, and report what they say about the paper's claims.

On the command line ``captum-alignment study --out DIR``; in Python::

    from captum_alignment.study import StudyConfig, run_study

    result = run_study(StudyConfig(strengths=(0.0, 0.1, 1.0)), "runs/mine")

It needs the optional dependencies, ``pip install 'captum-alignment[study]'``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_alignment.study._claims import Verdict
    from captum_alignment.study._config import StudyConfig, make_config
    from captum_alignment.study._study import StudyResult, run_study

__all__ = ["StudyConfig", "StudyResult", "Verdict", "make_config", "run_study"]

# Loaded on first use, so that the command line starts, and can complain, without the optional dependencies.
_MODULES = {
    "StudyConfig": "_config",
    "StudyResult": "_study",
    "Verdict": "_claims",
    "make_config": "_config",
    "run_study": "_study",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
