"""Evaluating one model on one data set: a row per sample, in parts that are shared, resumed and merged.

`evaluate` measures; `read_records` and `read_run` read what it left. `COLUMNS` says what
each column means, and ``docs/evaluate.md`` shows it.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.evaluation._columns import (
        BACK,
        BIAS,
        BY_ATTACK,
        COLUMNS,
        FORWARD,
        INPUT,
        RESIDUAL,
        about,
        title,
    )
    from captum_alignment.study.evaluation._config import EvaluationConfig
    from captum_alignment.study.evaluation._evaluate import evaluate
    from captum_alignment.study.evaluation._records import KIND, read_records, read_run, write_table
    from captum_alignment.study.evaluation._run import Run

__all__ = [
    "BACK",
    "BIAS",
    "BY_ATTACK",
    "COLUMNS",
    "FORWARD",
    "INPUT",
    "KIND",
    "RESIDUAL",
    "EvaluationConfig",
    "Run",
    "about",
    "evaluate",
    "read_records",
    "read_run",
    "title",
    "write_table",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_columns": ["BACK", "BIAS", "BY_ATTACK", "COLUMNS", "FORWARD", "INPUT", "RESIDUAL", "about", "title"],
        "_config": ["EvaluationConfig"],
        "_evaluate": ["evaluate"],
        "_records": ["KIND", "read_records", "read_run", "write_table"],
        "_run": ["Run"],
    },
)
