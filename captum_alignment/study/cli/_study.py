"""``captum-alignment study``."""

import argparse
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
    methods = options.pop("regularizer", ["lipschitz"])
    if len(methods) > 1 and "strengths" in options:
        raise ValueError("strengths: got some for several regularizers, expected them for a single one")
    configs = [make_config(regularizer=method, **options) for method in methods]
    where = {
        "data_root": given.get("data_root"),
        "download": given.get("download", False),
        "device": prepare(arguments),
    }

    # They load the optional dependencies.
    from captum_alignment.study.cohort import (
        run_methods,
        run_study,
    )

    if len(configs) == 1:
        _print_result(run_study(configs[0], arguments.out, **where))
        return
    found = run_methods(configs, arguments.out, **where)
    for method, result in found.studies.items():
        print(f"\n{method}", end="")
        _print_result(result)
    print(f"\n{found.report}")


def _print_result(result: "StudyResult") -> None:
    from captum_alignment.study.page import number

    columns = {
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
    print("".join(f"{head:>{10 + head.count(chr(0x303))}}" for head in columns))
    for row in result.summary.to_dict("records"):
        cells = [f"{row['strength']:g}", f"{row['training_seed']}", f"{row['accuracy']:.3f}"]
        cells += [number(row[column]) for column in list(columns.values())[3:]]
        line = "".join(f"{cell:>10}" for cell in cells)
        print(line + ("" if row["usable"] else "  left out: too inaccurate"))
    print()
    say(result.basis)
    for verdict in result.verdicts:
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
