"""The command ``captum-alignment``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_alignment.study._config import ATTACKS, DATASETS, OPTIONS, PORTFOLIOS, PRESETS, make_config

if TYPE_CHECKING:
    from captum_alignment.study._study import StudyResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (None: the process's own); the exit code is 0, 2 on an error, 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues with what is finished", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if arguments.debug:
            raise
        print(
            f"captum-alignment: {str(error.name).partition('.')[0]} is missing: pip install 'captum-alignment[study]'",
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        if arguments.debug:
            raise
        expected = isinstance(error, (ValueError, TypeError, OSError, ImportError))
        what = str(error) if expected else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"captum-alignment: {what}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-alignment", description="Adversarial robustness, saliency alignment and what links them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
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
    add("--strengths", type=float, nargs="+", metavar="λ", help="weights of the Lipschitz penalty, one model each")
    add("--epochs", type=int, metavar="N")
    add("--train-size", type=_size, metavar="N", help="training samples, or 'all'")
    add("--eval-size", type=_size, metavar="N", help="held-out samples that are measured, or 'all'")
    add("--attacks", nargs="+", metavar="NAME", help=f"some of {', '.join(ATTACKS)}; or one of {', '.join(PORTFOLIOS)}")
    add("--seed", type=int, metavar="N", help="of the choice of samples and of training (default: 0)")
    add("--seeds", type=int, metavar="N", help="train every model with that many seeds (default: 1)")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    add(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads (default: 1; small networks gain little from more, and lose much where cores are shared)",
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _study(arguments: argparse.Namespace) -> None:
    given: dict[str, Any] = vars(arguments)
    options = {key: given[key] for key in ("preset", "dataset", *OPTIONS) if key in given}
    for key in ("strengths", "attacks"):
        if key in options:
            options[key] = tuple(options[key])
    config = make_config(**options)
    if arguments.threads < 1:
        raise ValueError(f"threads: got {arguments.threads}, expected at least 1")

    import torch  # noqa: PLC0415 - only now that the arguments are known to be right

    from captum_alignment.study._study import run_study  # noqa: PLC0415 - loads the optional dependencies

    torch.set_num_threads(arguments.threads)
    result = run_study(
        config,
        arguments.out,
        data_root=given.get("data_root"),
        download=given.get("download", False),
        device=given.get("device", "cuda" if torch.cuda.is_available() else "cpu"),
    )
    _print_result(result)


def _print_result(result: "StudyResult") -> None:
    from captum_alignment.study._text import number  # noqa: PLC0415

    columns = {
        "λ": "strength",
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


def _size(text: str) -> int | None:
    return None if text == "all" else int(text)
