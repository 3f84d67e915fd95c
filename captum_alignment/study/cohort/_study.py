"""A study from start to end: train, evaluate, summarise, draw, report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_alignment.study.cohort._claims import Verdict, basis, verdicts
from captum_alignment.study.cohort._cohort import Cohort, cohort_of, shown_models, summarise
from captum_alignment.study.cohort._config import StudyConfig
from captum_alignment.study.cohort._diagnosis import gaps_sentence, residual_sentence
from captum_alignment.study.cohort._diagnosis_figures import linearity_figure, split_figure, terms_figure
from captum_alignment.study.cohort._evaluate import evaluate_cohort, read_gallery
from captum_alignment.study.cohort._figures import alignment_figure, cohort_figure, scatter_figure
from captum_alignment.study.cohort._report import Picture, write_report
from captum_alignment.study.cohort._train import members, study_data, train_cohort
from captum_alignment.study.compare import CORRELATIONS
from captum_alignment.study.evaluation import write_table
from captum_alignment.study.fit import TRAININGS
from captum_alignment.study.load import Data, as_device
from captum_alignment.study.page import gallery_figure, number
from captum_alignment.study.store import open_folder, whole_file, write_text

#: What the manifest of a study's folder calls it.
STUDY = "study"


@dataclass(frozen=True)
class StudyResult:
    """What a study found: a row per model and sample, a row per model, a verdict per claim, and the report's path."""

    records: pd.DataFrame
    summary: pd.DataFrame
    verdicts: list[Verdict]
    basis: str
    report: Path


def run_study(
    config: StudyConfig,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    download: bool = False,
    device: str = "cpu",
) -> StudyResult:
    """Train the cohort of ``config``, evaluate it on held-out samples, and write records, summary, figures and report.

    Whatever a previous run of the same configuration finished in ``out`` is kept and not repeated; files there are
    either whole or absent.

    Args:
        out: the folder to write to, new, empty, or of a study of this configuration.
        data_root: where torchvision's data sets lie; not needed for the digits.
        download: let torchvision fetch what is not there.
        device: "cpu", "cuda", "cuda:1", "mps"; its results may differ in rounding.

    Raises:
        ValueError, FileNotFoundError: a folder that holds something else, data that are not there, a device that is
            not available, a training that diverged.
    """
    out, target = Path(out), as_device(device)
    data = study_data(config, data_root=None if data_root is None else Path(data_root), download=download)
    open_folder(out, STUDY, config.as_dict())
    train_cohort(config, data, out, device=target)
    records = evaluate_cohort(config, data, out, device=target)
    write_table(out / "records.parquet", records)
    cohort = cohort_of(records, TRAININGS[config.regularizer].symbol)
    summary = summarise(cohort)
    write_text(out / "summary.csv", summary.to_csv(index=False))
    found, on = verdicts(cohort), basis(cohort)
    report = out / "report.html"
    write_report(
        report,
        config=config,
        verdicts=found,
        basis=on,
        summary=summary,
        pictures=_pictures(cohort, out / "figures"),
        galleries=_galleries(cohort, config, data, records, out),
        train_size=len(data.train.labels),
        eval_size=len(data.held_out.labels),
    )
    return StudyResult(records, summary, found, on, report)


def _pictures(cohort: Cohort, folder: Path) -> dict[str, Picture]:
    drawn = {
        "alignment": (
            alignment_figure(cohort),
            "Median alignment against median robustness: a curve for each attack, one for the linearized robustness, "
            "and a thick one for the smallest distance, with its 95 % intervals. Along a curve the strength grows. The "
            "dashed line is the alignment that the maps of other images would give.",
        ),
        "cohort": (
            cohort_figure(cohort),
            "The cohort over the regularization strength, with 95 % intervals. Strengths on grey ground fall below the "
            "dashed line of accuracy and are left out of the verdicts.",
        ),
        "linearized_alignment": (
            scatter_figure(cohort, "linearized_alignment"),
            "Linearized robustness against alignment; a point is a held-out image, r the rank correlation"
            + _omitted(cohort, "linearized_alignment"),
        ),
        "linearized_distance": (
            scatter_figure(cohort, "linearized_distance"),
            "Linearized robustness against the smallest distance found; on the dashed line they are equal"
            + _omitted(cohort, "linearized_distance"),
        ),
        "split": (
            split_figure(cohort),
            f"Left, the split: exact on every sample, shown as medians, which need not add up. {gaps_sentence(cohort)} "
            "Right, the paper’s bound, α plus the sizes of two terms: ρ̃ is never above it, and may be far below. All "
            "with 95 % intervals; strengths on grey ground are left out of the verdicts.",
        ),
        "terms": (
            terms_figure(cohort),
            "The margin over the rival is the sum of what the input and every bias contribute. The darker a bias, the "
            f"larger its part. {residual_sentence(cohort)}",
        ),
        "linearity": (
            linearity_figure(cohort),
            "Left and middle, median margins: of a linear network they would fall along the dashed line; one that is "
            "below 0 at the end of the step has crossed the boundary before ρ̃. Right, a point is a usable model with "
            "its 95 % intervals, the further left the more linear; the paper expects the points to fall from left to "
            "right.",
        ),
    }
    return {name: _save(figure, folder / f"{name}.png", caption) for name, (figure, caption) in drawn.items()}


def _omitted(cohort: Cohort, name: str) -> str:
    infinite = int(np.logical_not(cohort.finite(*CORRELATIONS[name])[:, 0]).sum())
    seed = f" Models of seed {cohort.seeds[0]}." if len(cohort.seeds) > 1 else ""
    return f". {infinite} infinite points are not shown.{seed}" if infinite else f".{seed}"


def _galleries(cohort: Cohort, config: StudyConfig, data: Data, records: pd.DataFrame, out: Path) -> list[Picture]:
    shown = shown_models(cohort)
    titles = ("least", "most") if len(shown) == 2 else ("only",)
    grid = members(config)
    pictures = []
    for title, (s, r) in zip(titles, shown, strict=True):
        member = grid[s * len(cohort.seeds) + r]
        maps = read_gallery(member, out)
        rows = records[records["model"] == member.name].set_index("sample")
        rows = rows.loc[maps["sample"]].to_dict("records")
        what = "The only usable model" if title == "only" else f"The {title} robust usable model"
        median = number(cohort.medians["distance"][s, r])
        caption = f"{what}: {cohort.symbol} = {member.strength:g}, seed {member.seed}, median ρ {median}."
        figure = gallery_figure(maps, rows, data.classes)
        pictures.append(_save(figure, out / "figures" / f"gallery_{title}.png", caption))
    return pictures


def _save(figure: Figure, path: Path, caption: str) -> Picture:
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return Picture(path, caption, alt=caption)
