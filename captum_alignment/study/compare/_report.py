"""The report that compares runs: one HTML file that needs nothing else."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from captum_alignment.study.compare._attributions import attribution_table, has_attributions
from captum_alignment.study.compare._bracket import bracket
from captum_alignment.study.compare._coordinates import is_study, runs_in
from captum_alignment.study.compare._epsilons import checked
from captum_alignment.study.compare._notices import SHOWN, facts, notices, settings, versions
from captum_alignment.study.compare._pictures import drawn, galleries
from captum_alignment.study.compare._summary import summarise_runs
from captum_alignment.study.compare._tables import class_table, side_by_side, summary_tables
from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import Picture, picture, write_page

#: The report of a study's runs; report.html is that of the study itself.
RUNS = "runs.html"
_GALLERY_DPI = 120  # photographs and their maps compress badly, and a report may hold dozens


@dataclass(frozen=True)
class Failures:
    """The samples of a run that could not be measured: how many, and the id and reason of the first."""

    run: str
    count: int
    first: list[tuple[str, str]]


def report(
    runs: Sequence[str | Path], *, out: str | Path | None = None, epsilons: Sequence[float] | None = None
) -> Path:
    """Write one report that compares the finished evaluations in the folders ``runs``; returns its path.

    Args:
        runs: folders of evaluations, or of studies, which stand for all their evaluations.
        out: the HTML file. None: in the folder of a single run report.html, of a single study, whose own report has
            that name, runs.html; else report.html in the working directory.
        epsilons: sizes of perturbations at which robust accuracy is tabulated; None: the usual ones of the norm.

    Raises:
        ValueError: there is no run, or a folder holds no finished evaluation; epsilons out of range.
    """
    found = [run for folder in runs for run in runs_in(folder)]
    folder = Path(runs[0]) if len(runs) == 1 else Path()
    path = Path(out) if out is not None else folder / (RUNS if is_study(folder) else "report.html")
    words = ["captum-alignment", "report", *runs, *(["--out", out] if out is not None else [])]
    words += ["--epsilons", *epsilons] if epsilons is not None else []
    write_runs_report(path, found, epsilons, command=shlex.join(map(str, words)))
    return path


def figures(runs: Sequence[str | Path]) -> dict[str, Figure]:
    """The figures of the report of the finished evaluations in the folders ``runs``, as matplotlib's.

    All runs of a call have the same axes, as in the report that compares them.

    Args:
        runs: as in `report`.

    Returns:
        {name: figure}: distributions, robust_accuracy, linearized_distance, linearized_alignment, split, linearity;
        terms, of networks with biases; attributions, where these were asked for; ``gallery:<run>:<kind>``, of kind
        least or most (robust), or shown (chosen by the caller).

    Raises:
        ValueError: there is no run, or a folder holds no finished evaluation.

    >>> import torch
    >>> from tempfile import mkdtemp
    >>> from captum_alignment.study import evaluate, figures
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> folder = mkdtemp()
    >>> _ = evaluate(net, (torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)), out=folder)
    >>> figures([folder])["robust_accuracy"].axes[0].get_xlabel()
    'ε, size of the perturbation (l₂)'
    """
    found = _distinct([run for folder in runs for run in runs_in(folder)])
    if not found:
        raise ValueError("runs: got none, expected at least one")
    pictures = drawn(found, summarise_runs(found), [[run] for run in found])
    kinds = {f"gallery:{run.name}:{kind}": figure for run in found for kind, figure, _ in galleries(run)}
    return {name: figure for name, (figure, _) in pictures.items()} | kinds


def write_runs_report(
    path: str | Path, runs: Sequence[Run], epsilons: Sequence[float] | None = None, *, command: str = ""
) -> None:
    """Write the report that compares ``runs`` to ``path``; images are embedded, every text is escaped.

    It prints the ``command`` that makes it, where that is known.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("runs: got none, expected at least one")
    for run in runs:
        checked(epsilons, run.config)
    runs = _distinct(runs)
    page = page_of_runs(runs, summarise_runs(runs), [[run] for run in runs], epsilons)
    write_page(Path(path), "runs.html.jinja", **page, command=command)


def page_of_runs(
    runs: Sequence[Run],
    summary: pd.DataFrame,
    groups: Sequence[Sequence[Run]],
    epsilons: Sequence[float] | None = None,
) -> dict[str, Any]:
    """What the template ``runs.html.jinja``, and one that extends it, is filled with.

    Tables have all ``runs``. Drawn is the first run of each of the ``groups``, whose runs differ in the training seed
    alone; robust accuracy is their mean.
    """
    shown = [group[0] for group in groups]
    names = [run.name for run in shown]
    rows = summary.loc[summary["run"].isin(names)]
    return {
        "names": [run.name for run in runs],
        "drawn": names,
        "facts": facts(runs),
        "notices": notices(runs, summary),
        "failures": [_failures(run) for run in runs if len(run.errors)],
        "tables": summary_tables(runs, summary, groups, checked(epsilons, runs[0].config)),
        "pictures": {name: picture(*one) for name, one in drawn(shown, rows, groups).items()},
        "bracket": bracket(runs),
        "classes": [(run.name, class_table(run, number)) for number, run in enumerate(shown, 1)],
        "galleries": [(run.name, _galleries(run)) for run in shown if len(run.gallery.get("kind", ()))],
        "attributions": attribution_table(shown) if has_attributions(shown) else None,
        "settings": side_by_side("settings", "settings of every run", names, *settings(shown)),
        "versions": side_by_side("versions", "versions of every run", names, *versions(shown)),
    }


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Folders of one name are told apart by a number."""
    total, seen = Counter(run.name for run in runs), Counter[str]()
    result = []
    for run in runs:
        seen[run.name] += 1
        again = total[run.name] > 1
        result.append(replace(run, name=f"{run.name} ({seen[run.name]})") if again else run)
    return result


def _failures(run: Run) -> Failures:
    first = run.errors.head(SHOWN)
    ids = first["id"] if "id" in first else first["sample"]
    return Failures(run.name, len(run.errors), list(zip(map(str, ids), map(str, first["error"]), strict=True)))


def _galleries(run: Run) -> list[Picture]:
    return [picture(figure, caption, dpi=_GALLERY_DPI) for _, figure, caption in galleries(run)]
