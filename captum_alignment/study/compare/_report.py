"""The report that compares runs: one HTML file that needs nothing else."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from captum_alignment.study.compare._attributions import attribution_figure, attribution_table, has_attributions
from captum_alignment.study.compare._bracket import bracket
from captum_alignment.study.compare._coordinates import is_study, runs_in
from captum_alignment.study.compare._diagnosis import residual_sentence
from captum_alignment.study.compare._diagnosis_figures import run_linearity_figure, run_split_figure, run_terms_figure
from captum_alignment.study.compare._epsilons import checked
from captum_alignment.study.compare._figures import beyond_sentence, distribution_figure, robust_accuracy_figure
from captum_alignment.study.compare._notices import SHOWN, facts, notices, settings, versions
from captum_alignment.study.compare._scatter import cut_off, run_scatter_figure
from captum_alignment.study.compare._summary import CORRELATIONS, finite_pair, summarise_runs
from captum_alignment.study.compare._tables import class_table, side_by_side, summary_tables
from captum_alignment.study.evaluation import ATTRIBUTION, BIAS, Run
from captum_alignment.study.page import PERCENT, Picture, gallery_figure, picture, write_page

#: The report of a study's runs; report.html is that of the study itself.
RUNS = "runs.html"
_GALLERY_DPI = 120  # photographs and their maps compress badly, and a report may hold dozens
#: What the samples of the gallery have in common, by their kind.
_SHOWN = {"least": "The least robust samples", "most": "The most robust samples", "shown": "Chosen samples"}
_MAPS = ("image", "gradient", "binarized_gradient", "adversarial")


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
    drawn = summary.loc[summary["run"].isin(names)]
    return {
        "names": [run.name for run in runs],
        "drawn": names,
        "facts": facts(runs),
        "notices": notices(runs, summary),
        "failures": [_failures(run) for run in runs if len(run.errors)],
        "tables": summary_tables(runs, summary, groups, checked(epsilons, runs[0].config)),
        "pictures": _pictures(shown, drawn, groups),
        "bracket": bracket(runs),
        "classes": [(run.name, class_table(run, number)) for number, run in enumerate(shown, 1)],
        "galleries": [(run.name, list(_galleries(run))) for run in shown if len(run.gallery.get("kind", ()))],
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


def _pictures(runs: Sequence[Run], summary: pd.DataFrame, groups: Sequence[Sequence[Run]]) -> dict[str, Picture]:
    biases = any(str(name).startswith(BIAS) for run in runs for name in run.records)
    drawn: dict[str, tuple[Any, str]] = {}
    if has_attributions(runs):
        caption = (
            "Medians with 95 % intervals. How far the alignment is above chance; how much faster than for a random "
            "ranking the probability falls; the rank correlation with the map of a network that has learnt nothing, "
            "near 0 for what explains the network; the largest relative change when the image changes a little."
        )
        drawn["attributions"] = attribution_figure(runs), caption
    drawn |= {
        "distributions": (
            distribution_figure(runs),
            "Of every run the median (dot), the central 50 % (bar) and 90 % (line) of the samples. ∞ is the share of "
            "samples for which there is no such distance; a bar without a right end reaches it. Grey, the chance level "
            "of α: what the maps of other images of the same run would give.",
        ),
        "robust_accuracy": (robust_accuracy_figure(groups), _robust_caption(groups)),
        "linearized_distance": (
            run_scatter_figure(runs, "linearized_distance"),
            "Linearized robustness against the smallest distance found; on the dashed line they are equal. "
            + _scatter_caption(runs, "linearized_distance"),
        ),
        "linearized_alignment": (
            run_scatter_figure(runs, "linearized_alignment"),
            "Linearized robustness against alignment. " + _scatter_caption(runs, "linearized_alignment"),
        ),
        "split": (
            run_split_figure(runs, summary),
            "Left, the split: exact on every sample, shown as medians, which need not add up. Right, the paper’s "
            f"bound, α plus the sizes of two terms: ρ̃ is never above it, and may be far below. All with {PERCENT} "
            "intervals; infinite medians are not shown.",
        ),
        "linearity": (
            run_linearity_figure(runs, summary),
            "Left and middle, median margins: of a linear network they would fall along the dashed line; one that is "
            "below 0 at the end of the step has crossed the boundary before ρ̃. Right, a point is a run with its "
            f"{PERCENT} intervals, the further left the more linear.",
        ),
    }
    if biases:
        drawn["terms"] = (
            run_terms_figure(runs),
            "The margin over the rival is the sum of what the input and every bias contribute. Shown are the largest "
            "biases of every run; the darker, the larger. A dash: the network has no such term. "
            + residual_sentence(runs),
        )
    return {name: picture(figure, caption) for name, (figure, caption) in drawn.items()}


def _robust_caption(groups: Sequence[Sequence[Run]]) -> str:
    runs = [group[0] for group in groups]
    unlabelled = [run.name for run in runs if not run.labelled.any()]
    what = "The share of samples that are predicted right and farther than ε from every adversarial that was found"
    if len(unlabelled) == len(runs):
        what = "The share of samples, without labels and so whether right or not, farther than ε from every adversarial"
    elif unlabelled:
        what += f" (without labels, whether right or not: {', '.join(unlabelled)})"
    if any(len(group) > 1 for group in groups):
        what += ", means over training seeds"
    return (
        f"{what}, with {PERCENT} bands point by point. Where none was found a sample has no answer and does not count. "
        "Attacks find distances from above, so a curve is an upper bound: a better attack lowers it."
        + beyond_sentence(runs)
    )


def _scatter_caption(runs: Sequence[Run], name: str) -> str:
    left_out = 0
    for run in runs:
        known = ~np.isnan([run.values(quantity) for quantity in CORRELATIONS[name]]).any(axis=0)
        left_out += int(known.sum()) - len(finite_pair(run, name)[0])
    omitted = f" {left_out:,} infinite points are not shown." if left_out else ""
    if outside := cut_off(runs, name):
        omitted += f" {outside:,} finite points lie outside the axes."
    return f"A point is a sample; of many, shades show how many. r is the rank correlation, of all points.{omitted}"


def _galleries(run: Run) -> Iterator[Picture]:
    """The samples of a run that its gallery keeps, by their kind."""
    low, high = _bounds(run)
    shown = np.isin(run.records["sample"].to_numpy(), run.gallery["sample"])
    rows = run.rows(shown).drop_duplicates("sample").set_index("sample")
    for kind in dict.fromkeys(run.gallery["kind"].tolist()):
        chosen = (run.gallery["kind"] == kind) & np.isin(run.gallery["sample"], rows.index)
        if not chosen.any():
            continue
        maps = {name: run.gallery[name][chosen] for name in _MAPS}
        # Saliency and perturbation have a scale of their own.
        maps |= {name: (maps[name] - low) / (high - low) for name in ("image", "adversarial")}
        records = rows.loc[run.gallery["sample"][chosen]].reset_index().to_dict("records")
        ids = ", ".join(str(record.get("id", record["sample"])) for record in records)
        caption = f"{_SHOWN[kind]} of {run.name}: {ids}."
        more = {
            name.removeprefix(ATTRIBUTION): of[chosen]
            for name, of in run.gallery.items()
            if name.startswith(ATTRIBUTION)
        }
        yield picture(gallery_figure(maps, records, run.classes, more), caption, dpi=_GALLERY_DPI)


def _bounds(run: Run) -> tuple[float, float]:
    """The least and the greatest value of an image."""
    bounds = run.config.get("bounds")
    low, high = bounds if isinstance(bounds, list | tuple) and len(bounds) == 2 else (0.0, 1.0)
    return float(low), float(high)
