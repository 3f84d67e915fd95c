"""``captum-alignment study``."""

import argparse
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_alignment.study.cli._options import (
    Command,
    add_fields,
    add_machine_options,
    add_out,
    chosen,
    prepare,
    say,
    some,
)

if TYPE_CHECKING:
    from captum_alignment.study.cohort import StudyResult


def _study_options(parser: argparse.ArgumentParser) -> None:
    from captum_alignment.robust import attack_names
    from captum_alignment.study.cohort import DATASETS, PRESETS, StudyConfig
    from captum_alignment.study.fit import TRAININGS, TrainingConfig

    add_out(parser, "study")
    text = f"the setup of a paper, which other options override: {', '.join(PRESETS)}"
    parser.add_argument("--preset", metavar="NAME", help=text)
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where torchvision's data sets lie")
    parser.add_argument("--download", action="store_true", help="let torchvision download what is not there")
    training = [field for field in TrainingConfig.__dataclass_fields__ if field != "epochs"]
    known = {"dataset": DATASETS, "regularizer": TRAININGS, "attacks": attack_names(2)}
    add_fields(parser, StudyConfig, but=training, known=known)
    add_fields(
        parser.add_argument_group("training (defaults of the digits, other data have their own)"), StudyConfig, training
    )
    add_machine_options(parser)


def _study(arguments: argparse.Namespace) -> None:
    from captum_alignment.study.cohort import StudyConfig, make_config

    given: dict[str, Any] = vars(arguments)
    options = {**some(given, "preset"), **chosen(StudyConfig, given)}
    trainings = options.pop("regularizer", ["lipschitz"])
    if len(trainings) > 1 and "strengths" in options:
        raise ValueError("strengths: got some for several regularizers, expected them for a single one")
    configs = [make_config(regularizer=training, **options) for training in trainings]
    where = {
        "data_root": given.get("data_root"),
        "download": given.get("download", False),
        "device": prepare(arguments),
    }

    from captum_alignment.study.cohort import run_study  # loads the optional dependencies

    _print_result(run_study(configs, arguments.out, command=arguments.command, **where))


def _print_result(result: "StudyResult") -> None:
    from captum_alignment.study.page import number

    columns = {
        "training": "training",
        "strength": "strength",
        "seed": "training_seed",
        "accuracy": "accuracy",
        "ρ": "distance",
        "ρ̃": "linearized_robustness",
        "α": "alignment",
        "chance": "null",
        "r(ρ̃,α)": "spearman_linearized_alignment",
        "r(ρ̃,ρ)": "spearman_linearized_distance",
    }
    print("\nmedians over held-out samples, and rank correlations r")
    width = max(10, *map(len, result.summary["training"]))
    print(f"{'training':>{width}}" + "".join(f"{head:>{10 + head.count(chr(0x303))}}" for head in list(columns)[1:]))
    for row in result.summary.to_dict("records"):
        cells = [f"{row['strength']:g}", f"{row['training_seed']}", f"{row['accuracy']:.3f}"]
        cells += [number(row[column]) for column in list(columns.values())[4:]]
        line = f"{row['training']:>{width}}" + "".join(f"{cell:>10}" for cell in cells)
        print(line + ("" if row["usable"] else "  left out: too inaccurate"))
    print()
    say(result.basis)
    for training, own in groupby(result.verdicts, key=lambda verdict: verdict.training):
        print(f"\n{training}")
        for verdict in own:
            say(f"- {verdict}")
    print(f"\n{result.report}")


COMMANDS = (
    Command(
        "study",
        "train a cohort of growing regularization, measure it, write a report",
        "Train one network per regularization strength, measure robustness and alignment on held-out samples, and "
        "write records, summary, figures and a report. The same command continues an interrupted study.",
        "captum-alignment study --out runs/digits --strengths 0 0.1 1 --seeds 3",
        _study_options,
        _study,
    ),
)
