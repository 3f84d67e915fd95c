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
    from captum_alignment.study.cohort import StudyConfig, StudyResult, Verdict, make_config, run_study
    from captum_alignment.study.compare import figures, report
    from captum_alignment.study.evaluation import evaluate, read_records
    from captum_alignment.study.load import Features, LoadedModel, Logits, load_dataset, load_model
    from captum_alignment.study.roar import remove_and_retrain

__all__ = [
    "Features",
    "LoadedModel",
    "Logits",
    "StudyConfig",
    "StudyResult",
    "Verdict",
    "evaluate",
    "figures",
    "load_dataset",
    "load_model",
    "make_config",
    "read_records",
    "remove_and_retrain",
    "report",
    "run_study",
]

# Loaded on first use, so that the command line starts, and can complain, without the optional dependencies.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "cohort": ["StudyConfig", "StudyResult", "Verdict", "make_config", "run_study"],
        "compare": ["figures", "report"],
        "evaluation": ["evaluate", "read_records"],
        "load": ["Features", "LoadedModel", "Logits", "load_dataset", "load_model"],
        "roar": ["remove_and_retrain"],
    },
    needs=dict.fromkeys(("cohort", "compare", "evaluation", "load", "roar"), "study"),
)
