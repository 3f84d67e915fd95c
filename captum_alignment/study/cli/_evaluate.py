"""``captum-alignment evaluate`` and ``captum-alignment report``."""

import argparse
from pathlib import Path
from typing import Any

from captum_alignment.study.cli._options import (
    Command,
    add_data_options,
    add_fields,
    add_machine_options,
    add_model_options,
    add_out,
    chosen,
    fitting,
    prepare,
    say,
    some,
)

#: The fields of `EvaluationConfig` that say which samples are measured.
_SAMPLES = ("subset", "seed")


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    from captum_alignment.robust import attack_names
    from captum_alignment.study.evaluation import EvaluationConfig
    from captum_alignment.study.load import BUILT_IN

    add_out(parser, "run")
    add_model_options(parser, required=True)
    data = add_data_options(parser, required=True)
    data.add_argument("--split", metavar="NAME", help="test (default) or train, where the data have both")
    add_fields(data, EvaluationConfig, _SAMPLES)
    measured = parser.add_argument_group("measurement")
    add_fields(measured, EvaluationConfig, but=_SAMPLES, known={"attacks": attack_names(), "attributions": BUILT_IN})
    _add_epsilons(measured)
    add_machine_options(parser)


def _add_epsilons(group: Any) -> None:
    help = "sizes at which the report has robust accuracy, such as 0.5 or 8/255 (default: the usual ones of the norm)"
    group.add_argument("--epsilons", nargs="+", metavar="EPS", help=help)


def _epsilons(given: dict[str, Any]) -> list[float] | None:
    from captum_alignment.study.compare import epsilon

    return [epsilon(text) for text in given["epsilons"]] if "epsilons" in given else None


def _evaluate(arguments: argparse.Namespace) -> None:
    given: dict[str, Any] = vars(arguments)
    device = prepare(arguments)

    from captum_alignment.study.compare import checked, write_runs_report
    from captum_alignment.study.evaluation import EvaluationConfig, evaluate, read_run
    from captum_alignment.study.load import as_device, load_dataset, load_model
    from captum_alignment.study.store import processes

    options = chosen(EvaluationConfig, given)
    config = EvaluationConfig(**options)  # complains before anything is loaded
    epsilons = _epsilons(given)
    checked(epsilons, {"norm": f"{config.norm:g}", "bounds": config.bounds})
    model = load_model(
        arguments.model, device=as_device(device), **some(given, "weights", "mean", "std", "num_classes")
    )
    geometry = fitting(given, model)
    dataset = load_dataset(arguments.data, root=given.get("data_root"), **geometry, **some(given, "split", "download"))
    about = {"model": model.name, "dataset": arguments.data, **some(given, "split")}
    about |= {"mean": model.mean, "std": model.std, **geometry}
    with processes() as group:
        evaluate(
            model.module,
            dataset,
            out=arguments.out,
            show_progress=True,
            about=about,
            read=False,
            **options,
        )
        if group.rank == 0:
            run = read_run(arguments.out)
            report = arguments.out / "report.html"
            write_runs_report(report, [run], epsilons, command=arguments.command)
            print(f"{len(run.records)} samples, {len(run.errors)} of them failed")
            _print_medians(run, checked(epsilons, run.config))
            print(report)


def _print_medians(run: Any, epsilons: tuple[float, ...]) -> None:
    from captum_alignment.study.compare import QUANTITIES, as_text, is_certified, summarise_runs
    from captum_alignment.study.evaluation import title
    from captum_alignment.study.page import PERCENT, number, percent

    (row,) = summarise_runs([run], epsilons).to_dict("records")
    names = dict.fromkeys(["distance", "linearized_robustness", *QUANTITIES])
    shown = {"accuracy": ("accuracy", percent), **{name: (title(name), number) for name in names}}
    sides = ("robust", "certified") if is_certified(run) else ("robust",)
    shown |= {f"{side}@{eps:g}": (f"{side}@{as_text(eps)}", percent) for eps in epsilons for side in sides}
    width = max(len(head) for head, _ in shown.values())
    say(f"medians over the measured samples, with {PERCENT} intervals; distances in {run.norm}")
    for name, (head, show) in shown.items():
        # A combining tilde takes no place of its own.
        value, low, high = (show(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
        print(f"  {head:{width + head.count(chr(0x303))}}{value:>8}  ({low} to {high})")


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of an evaluation")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="FILE",
        help="default: report.html in the folder of a single run, else here",
    )
    _add_epsilons(parser)


def _report(arguments: argparse.Namespace) -> None:
    from captum_alignment.study.compare import report

    print(report(arguments.runs, out=arguments.out, epsilons=_epsilons(vars(arguments))))


COMMANDS = (
    Command(
        "evaluate",
        "measure any model on any data, sample by sample, and write a report",
        "Measure robustness, alignment and what links them for every sample of a data set, and write one row per "
        "sample and a report. The same command continues an interrupted run; under torchrun its processes share the "
        "work: torchrun --nproc-per-node 2 -m captum_alignment evaluate ...",
        "captum-alignment evaluate --out runs/a --model nets.py:robust --weights robust.pt --data imagefolder:photos",
        _evaluate_options,
        _evaluate,
    ),
    Command(
        "report",
        "compare evaluations side by side",
        "Write one report that compares finished evaluations.",
        "captum-alignment report runs/a runs/b --out comparison.html",
        _report_options,
        _report,
    ),
)
