"""``captum-alignment roar`` and ``captum-alignment supplement``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_alignment.study._cli_common import (
    Commands,
    add_data_options,
    add_machine_options,
    add_model_options,
    prepare,
    size,
    some,
)
from captum_alignment.study._roar_options import (
    BUILT_IN,
    DEFAULTS,
    METHODS,
    MODES,
    NETWORKS,
    PRESETS,
    SUPPLEMENT,
    TRAININGS,
    roar_options,
)

if TYPE_CHECKING:
    import pandas as pd

_TRAINING = ("epochs", "batch_size", "optimizer", "learning_rate", "decay_every", "weight_decay", "augment")


def _add_roar(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "roar",
        help="retrain without what attributions rank highest, and write a report",
        description="Attribute every image by a network, replace the features that are ranked highest by their mean "
        "(ROAR) or all others (KAR), retrain from scratch, test, and write a report. Without --model the network that "
        "is explained is trained first. The same command continues an interrupted study, and one with more methods, "
        "fractions, modes or seeds adds to it; under torchrun its processes share the work.",
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=_roar, debug=False)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to: new, empty, or of the same study")
    add("--preset", metavar="NAME", help=f"{', '.join(PRESETS)}: the paper's setup; other options override it")
    model = add_model_options(parser, required=False)
    model("--retrain", metavar="SPEC", help="what is retrained (default: --model, untrained)")
    model("--network", metavar="NAME", help=f"without --model: {', '.join(NETWORKS)} (default: {DEFAULTS['network']})")
    _add_data(parser)
    grid = parser.add_argument_group("grid").add_argument
    grid("--methods", nargs="+", metavar="NAME", help=f"some of {', '.join(BUILT_IN)} (default: {' '.join(METHODS)})")
    grid("--fractions", type=float, nargs="+", metavar="T", help="of the features (default: 0.2 0.4 0.6 0.8)")
    grid("--modes", nargs="+", metavar="NAME", help=f"{' and '.join(MODES)} (default: roar)")
    grid("--seeds", type=int, metavar="N", help=f"networks of each cell (default: {DEFAULTS['seeds']})")
    grid("--per", metavar="NAME", help="what is ranked: each pixel (default) or each value of a channel")
    grid("--absolute", action="store_true", help="rank by absolute values (default: the most positive are on top)")
    _add_training(parser)
    add_machine_options(parser)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = add_data_options(parser, required=False)
    data("--train-data", metavar="SPEC", help="training images of data that have no split of their own")
    data("--train-size", type=size, metavar="N", help="training images, or 'all' (default)")
    data("--test-size", type=size, metavar="N", help="test images, or 'all' (default)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training").add_argument
    training("--epochs", type=int, metavar="N", help="(default: 15)")
    training("--batch-size", type=int, metavar="N", help="(default: 50)")
    training("--optimizer", metavar="NAME", help="adam (default) or sgd with momentum .9")
    training("--learning-rate", type=float, metavar="X", help="(default: 0.002)")
    training("--decay-every", type=int, metavar="N", help="epochs (default: along a cosine)")
    training("--weight-decay", type=float, metavar="X", help="(default: 0)")
    training("--augment", action="store_true", help="flip and shift training images at random")


def _roar(arguments: argparse.Namespace) -> None:
    given = roar_options(vars(arguments))
    _check_seeds(given)
    device = prepare(arguments)

    from captum_alignment.study._device import as_device  # noqa: PLC0415 - loads the optional dependencies
    from captum_alignment.study._distributed import processes  # noqa: PLC0415
    from captum_alignment.study._roar import remove_and_retrain  # noqa: PLC0415
    from captum_alignment.study._roar_cell import Retraining  # noqa: PLC0415
    from captum_alignment.study._roar_sources import load_splits, load_subject, train_subject  # noqa: PLC0415

    training = some(given, *_TRAINING)
    with processes() as group:
        target, retraining = as_device(device), Retraining(**training)
        named = load_subject(given, target) if "model" in given else None
        train, test, geometry = load_splits(given, named)
        subject = named or train_subject(given, train, retraining, device=target, group=group)
        cells = remove_and_retrain(
            subject.model,
            subject.make,
            train,
            test,
            out=arguments.out,
            seeds=range(given["seeds"]),
            device=device,
            show_progress=True,
            about={"model": subject.name, "retrained": subject.retrained, "data": given["data"], **geometry},
            **some(given, "methods", "fractions", "modes", "per", "absolute"),
            **training,
        )
        if group.rank == 0:
            _print_areas(cells)
            print(arguments.out / "report.html")


def _print_areas(cells: "pd.DataFrame") -> None:
    from captum_alignment.study._roar_summary import areas  # noqa: PLC0415
    from captum_alignment.study._tables import percent, points  # noqa: PLC0415

    rows: list[dict[str, Any]] = areas(cells).to_dict("records")  # pyright: ignore[reportAssignmentType] - its keys are names
    width = max(len(row["method"]) for row in rows)
    print("\narea under the accuracy, and percentage points beyond random, with 95 % intervals over seeds")
    for row in rows:
        area = f"{percent(row['area']):>7} ({percent(row['area_low'])} to {percent(row['area_high'])})"
        beyond = f"{points(row['beyond_random']):>6}"
        print(f"{row['mode']:5}{row['method']:{width}}{area:>30}{beyond:>8}")


def _add_supplement(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "supplement",
        help="ask whether robust networks have faithful saliency",
        description="Train networks in several ways and strengths, measure robustness and alignment, run ROAR of the "
        "saliency of each, and write a report: the supplement of Zeng et al. 2021. The same command continues.",
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(run=_supplement, debug=False)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to: new, empty, or of the same study")
    add("--trainings", nargs="+", metavar="NAME", help=f"some of {', '.join(TRAININGS)}")
    add("--network", metavar="NAME", help=f"{', '.join(NETWORKS)} (default: {DEFAULTS['network']})")
    _add_data(parser)
    grid = parser.add_argument_group("grid").add_argument
    grid("--fractions", type=float, nargs="+", metavar="T", help="of the pixels (default: 0.2 0.4 0.6 0.8)")
    grid("--seeds", type=int, metavar="N", help=f"retrainings of each cell (default: {SUPPLEMENT['seeds']})")
    grid("--signed", action="store_true", help="rank by signed gradients (default: by absolute values)")
    _add_training(parser)
    add_machine_options(parser)
    return parser


def _supplement(arguments: argparse.Namespace) -> None:
    given = roar_options({**SUPPLEMENT, **vars(arguments)})
    _check_seeds(given)
    device = prepare(arguments)

    from captum_alignment.study._device import as_device  # noqa: PLC0415 - loads the optional dependencies
    from captum_alignment.study._distributed import processes  # noqa: PLC0415
    from captum_alignment.study._roar_sources import load_splits  # noqa: PLC0415
    from captum_alignment.study._supplement import run_supplement, verdict  # noqa: PLC0415

    with processes() as group:
        train, test, geometry = load_splits(given, None)
        table = run_supplement(
            train,
            test,
            out=arguments.out,
            seeds=range(given["seeds"]),
            absolute="signed" not in given,
            device=as_device(device),
            training=some(given, *_TRAINING),
            about={"data": given["data"], **geometry},
            **some(given, "network", "trainings", "fractions"),
        )
        if group.rank == 0:
            print(f"\n{verdict(table)}\n{arguments.out / 'report.html'}")


def _check_seeds(given: dict[str, Any]) -> None:
    if given["seeds"] < 1:
        raise ValueError(f"--seeds: got {given['seeds']}, expected at least 1")


COMMANDS = (_add_roar, _add_supplement)
