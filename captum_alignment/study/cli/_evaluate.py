"""``captum-alignment evaluate`` and ``captum-alignment report``."""

import argparse
from pathlib import Path
from typing import Any

from captum_alignment.study.cli._options import (
    Commands,
    add_data_options,
    add_machine_options,
    add_model_options,
    prepare,
    size,
    some,
)
from captum_alignment.study.evaluation import ATTACKS, PORTFOLIOS


def _add_evaluate(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "evaluate",
        help="measure any model on any data, sample by sample, and write a report",
        description="Measure robustness, alignment and what links them for every sample of a data set, and write one "
        "row per sample and a report. The same command continues an interrupted run; under torchrun its processes "
        "share the work: torchrun --nproc-per-node 2 -m captum_alignment evaluate ...",
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=_evaluate, debug=False)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to: new, empty, or of the same run")
    add_model_options(parser, required=True)
    data = add_data_options(parser, required=True)
    data("--split", metavar="NAME", help="test (default) or train, where the data have both")
    data("--subset", type=size, metavar="N", help="samples drawn by --seed, or 'all' (default)")
    data("--seed", type=int, metavar="N")
    measured = parser.add_argument_group("measurement").add_argument
    measured("--attacks", nargs="+", metavar="NAME", help=f"{', '.join(PORTFOLIOS)}; or some of {', '.join(ATTACKS)}")
    measured("--norm", type=float, metavar="P", help="of perturbations: 1, 2 (default) or inf")
    measured("--candidates", type=int, metavar="N", help="search only that many rivals (default: all classes)")
    measured("--precision", metavar="NAME", help="float32 (default), bfloat16, float16")
    measured(
        "--batch-size", type=_batch_size, metavar="N", help="'auto' (default) halves it when memory does not suffice"
    )
    measured("--part-size", type=int, metavar="N", help="samples of a part, which is written as one file")
    measured("--strict", action="store_true", help="stop at the first sample that cannot be measured")
    add("--workers", type=int, metavar="N", help="processes that read ahead (default: 0)")
    add_machine_options(parser)
    return parser


def _evaluate(arguments: argparse.Namespace) -> None:
    given: dict[str, Any] = vars(arguments)
    device = prepare(arguments)

    from captum_alignment.study.compare import write_runs_report
    from captum_alignment.study.evaluation import (
        evaluate,
        read_run,
    )
    from captum_alignment.study.load import (
        as_device,
        load_dataset,
        load_model,
    )
    from captum_alignment.study.store import processes

    model = load_model(
        arguments.model, device=as_device(device), **some(given, "weights", "mean", "std", "num_classes")
    )
    geometry = {name: given.get(name, getattr(model, name)) for name in ("resize", "crop")}
    dataset = load_dataset(arguments.data, root=given.get("data_root"), **geometry, **some(given, "split", "download"))
    about = {"model": model.name, "dataset": arguments.data, **some(given, "split")}
    about |= {"mean": model.mean, "std": model.std, **geometry}
    names = ("attacks", "norm", "candidates", "subset", "seed", "part_size", "batch_size", "precision", "strict")
    with processes() as group:
        evaluate(
            model.module,
            dataset,
            out=arguments.out,
            num_workers=given.get("workers", 0),
            show_progress=True,
            about=about,
            read=False,
            **some(given, *names),
        )
        if group.rank == 0:
            run = read_run(arguments.out)
            report = arguments.out / "report.html"
            write_runs_report(report, [run])
            print(f"{len(run.records)} samples, {len(run.errors)} of them failed\n{report}")


def _add_report(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "report",
        help="compare evaluations side by side",
        description="Write one report that compares finished evaluations.",
    )
    parser.set_defaults(run=_report)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of an evaluation")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the folder of a single run, else here"
    )
    return parser


def _report(arguments: argparse.Namespace) -> None:
    from captum_alignment.study.compare import report

    print(report(arguments.runs, out=arguments.out))


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


COMMANDS = (_add_evaluate, _add_report)
