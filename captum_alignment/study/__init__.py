"""The application: evaluate any model on any data, and study cohorts of models for the paper's claims.

On the command line ``captum-alignment evaluate | report | study | roar``; in Python::

    from captum_alignment.study import StudyConfig, evaluate, remove_and_retrain, report, run_study

    records = evaluate(model, dataset, out="runs/mine")
    report(["runs/mine", "runs/other"], out="comparison.html")
    result = run_study(StudyConfig(strengths=(0.0, 0.1, 1.0)), "runs/study")
    cells = remove_and_retrain(model, make_model, train, test, methods=("saliency", "random"), out="runs/roar")

It needs the optional dependencies, ``pip install 'captum-alignment[study]'``.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study._claims import Verdict
    from captum_alignment.study._config import StudyConfig, make_config
    from captum_alignment.study._data import load_dataset
    from captum_alignment.study._evaluate import evaluate
    from captum_alignment.study._models import LoadedModel, Logits, load_model
    from captum_alignment.study._records import read_records
    from captum_alignment.study._roar import remove_and_retrain
    from captum_alignment.study._runs_report import report
    from captum_alignment.study._study import StudyResult, run_study

__all__ = [
    "LoadedModel",
    "Logits",
    "StudyConfig",
    "StudyResult",
    "Verdict",
    "evaluate",
    "load_dataset",
    "load_model",
    "make_config",
    "read_records",
    "remove_and_retrain",
    "report",
    "run_study",
]

# Loaded on first use, so that the command line starts, and can complain, without the optional dependencies.
__getattr__ = on_first_use(
    __name__,
    {
        "study": {
            "LoadedModel": "_models",
            "Logits": "_models",
            "StudyConfig": "_config",
            "StudyResult": "_study",
            "Verdict": "_claims",
            "evaluate": "_evaluate",
            "load_dataset": "_data",
            "load_model": "_models",
            "make_config": "_config",
            "read_records": "_records",
            "remove_and_retrain": "_roar",
            "report": "_runs_report",
            "run_study": "_study",
        }
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
