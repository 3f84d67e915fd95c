"""``captum-alignment study``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_alignment.study.cli._options import Commands, add_machine_options, prepare, size
from captum_alignment.study.cohort import DATASETS, OPTIONS, PRESETS, make_config
from captum_alignment.study.evaluation import ATTACKS, PORTFOLIOS
from captum_alignment.study.fit import TRAININGS

if TYPE_CHECKING:
    from captum_alignment.study.cohort import StudyResult


def _add_study(commands: Commands) -> argparse.ArgumentParser:
    study = commands.add_parser(
        "study",
        help="train a cohort of growing regularization, measure it, write a report",
        description="Train one network per regularization strength, measure robustness and alignment on held-out "
        "samples, and write records, summary, figures and a report. The same command continues an interrupted study.",
        argument_default=argparse.SUPPRESS,
    )
    study.set_defaults(run=_study, debug=False)
    add = study.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to: new, empty, or of the same study")
    add("--dataset", metavar="NAME", help=f"{', '.join(DATASETS)} (default: digits, which need no download)")
    add("--data-root", type=Path, metavar="DIR", help="where torchvision's data sets lie")
    add("--download", action="store_true", help="let torchvision download what is not there")
    add("--preset", metavar="NAME", help=f"{', '.join(PRESETS)}: the paper's setup; other options override it")
    add(
        "--regularizer",
        nargs="+",
        metavar="NAME",
        help=f"how the cohort is trained: {', '.join(TRAININGS)} (default: lipschitz); several are compared",
    )
    add("--strengths", type=float, nargs="+", metavar="X", help="of a single regularizer, one model each")
    add("--epochs", type=int, metavar="N")
    add("--train-size", type=size, metavar="N", help="training samples, or 'all'")
    add("--eval-size", type=size, metavar="N", help="held-out samples that are measured, or 'all'")
    add("--attacks", nargs="+", metavar="NAME", help=f"some of {', '.join(ATTACKS)}; or one of {', '.join(PORTFOLIOS)}")
    add("--seed", type=int, metavar="N", help="of the choice of samples and of training (default: 0)")
    add("--seeds", type=int, metavar="N", help="train every model with that many seeds (default: 1)")
    add_machine_options(study)
    return study


def _study(arguments: argparse.Namespace) -> None:
    given: dict[str, Any] = vars(arguments)
    options = {key: given[key] for key in ("preset", "dataset", *OPTIONS) if key in given}
    for key in ("strengths", "attacks"):
        if key in options:
            options[key] = tuple(options[key])
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
    print(f"\n{result.basis}")
    for verdict in result.verdicts:
        print(f"- {verdict}")
    print(f"\n{result.report}")


COMMANDS = (_add_study,)
