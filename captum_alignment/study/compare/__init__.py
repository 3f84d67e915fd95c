"""Reports of runs: any number of evaluations side by side, from their records alone.

`report` reads folders and writes the page, `figures` returns what it draws; `write_runs_report` takes runs that were
read, and `page_of_runs` is what a page that adds to it is filled with.
"""

from captum_alignment.study.compare._attributions import attribution_figure
from captum_alignment.study.compare._chance import TIMES_CHANCE, shared_by_maps, times_chance
from captum_alignment.study.compare._coordinates import COORDINATES, EVALUATIONS, coordinates, runs_in
from captum_alignment.study.compare._epsilons import as_text, checked, epsilon
from captum_alignment.study.compare._figures import distribution_figure, robust_accuracy_figure
from captum_alignment.study.compare._report import figures, page_of_runs, report, write_runs_report
from captum_alignment.study.compare._summary import CORRELATIONS, QUANTITIES, USABLE, is_certified, summarise_runs

__all__ = [
    "COORDINATES",
    "CORRELATIONS",
    "EVALUATIONS",
    "QUANTITIES",
    "TIMES_CHANCE",
    "USABLE",
    "as_text",
    "attribution_figure",
    "checked",
    "coordinates",
    "distribution_figure",
    "epsilon",
    "figures",
    "is_certified",
    "page_of_runs",
    "report",
    "robust_accuracy_figure",
    "runs_in",
    "shared_by_maps",
    "summarise_runs",
    "times_chance",
    "write_runs_report",
]
