"""Evaluating one model on one data set: a row per sample, in parts that are shared, resumed and merged.

`evaluate` measures; `read_records` and `read_run` read what it left. ``docs/evaluate.md`` says what each column means.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.evaluation._columns import BACK, BIAS, FORWARD, INPUT, RESIDUAL
    from captum_alignment.study.evaluation._config import ATTACKS, PORTFOLIOS
    from captum_alignment.study.evaluation._evaluate import evaluate
    from captum_alignment.study.evaluation._records import KIND, gallery_file, read_records, read_run, write_table
    from captum_alignment.study.evaluation._run import Run

__all__ = [
    "ATTACKS",
    "BACK",
    "BIAS",
    "FORWARD",
    "INPUT",
    "KIND",
    "PORTFOLIOS",
    "RESIDUAL",
    "Run",
    "evaluate",
    "gallery_file",
    "read_records",
    "read_run",
    "write_table",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_columns": ["BACK", "BIAS", "FORWARD", "INPUT", "RESIDUAL"],
        "_config": ["ATTACKS", "PORTFOLIOS"],
        "_evaluate": ["evaluate"],
        "_records": ["KIND", "gallery_file", "read_records", "read_run", "write_table"],
        "_run": ["Run"],
    },
)
