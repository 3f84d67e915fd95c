"""Evaluating one model on one data set: a row per sample, in parts that are shared, resumed and merged.

`evaluate` measures; `read_records` and `read_run` read what it left. `COLUMNS` says what
each column means, and ``docs/evaluate.md`` shows it.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.evaluation._columns import (
        AGREEMENT,
        BACK,
        BIAS,
        BY_ATTACK,
        COLUMNS,
        DELETION,
        FAILED,
        FORWARD,
        INPUT,
        MASK,
        MASS,
        OF_RANDOM,
        POINTING,
        RANDOMIZED,
        RESIDUAL,
        SECONDS,
        SENSITIVITY,
        about,
        attributions_in,
        of_attribution,
        title,
    )
    from captum_alignment.study.evaluation._config import EvaluationConfig
    from captum_alignment.study.evaluation._evaluate import evaluate
    from captum_alignment.study.evaluation._gallery import ATTRIBUTION
    from captum_alignment.study.evaluation._records import KIND, read_records, read_run, write_table
    from captum_alignment.study.evaluation._run import Run

__all__ = [
    "AGREEMENT",
    "ATTRIBUTION",
    "BACK",
    "BIAS",
    "BY_ATTACK",
    "COLUMNS",
    "DELETION",
    "FAILED",
    "FORWARD",
    "INPUT",
    "KIND",
    "MASK",
    "MASS",
    "OF_RANDOM",
    "POINTING",
    "RANDOMIZED",
    "RESIDUAL",
    "SECONDS",
    "SENSITIVITY",
    "EvaluationConfig",
    "Run",
    "about",
    "attributions_in",
    "evaluate",
    "of_attribution",
    "read_records",
    "read_run",
    "title",
    "write_table",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_columns": [
            *(
                "AGREEMENT",
                "BACK",
                "BIAS",
                "BY_ATTACK",
                "COLUMNS",
                "DELETION",
                "FAILED",
                "FORWARD",
                "INPUT",
                "MASK",
                "MASS",
                "OF_RANDOM",
                "POINTING",
                "RANDOMIZED",
            ),
            *("RESIDUAL", "SECONDS", "SENSITIVITY", "about", "attributions_in", "of_attribution", "title"),
        ],
        "_config": ["EvaluationConfig"],
        "_evaluate": ["evaluate"],
        "_gallery": ["ATTRIBUTION"],
        "_records": ["KIND", "read_records", "read_run", "write_table"],
        "_run": ["Run"],
    },
)
