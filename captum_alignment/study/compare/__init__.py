"""Reports of runs: any number of evaluations side by side, from their records alone.

`report` reads folders and writes the page; `write_runs_report` takes runs that were read.
"""

from captum_alignment.study.compare._report import report, write_runs_report
from captum_alignment.study.compare._summary import CORRELATIONS, GAPS, QUANTITIES, USABLE, summarise_runs

__all__ = ["CORRELATIONS", "GAPS", "QUANTITIES", "USABLE", "report", "summarise_runs", "write_runs_report"]
