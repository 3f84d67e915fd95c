"""``captum-alignment roar``."""

import argparse
from typing import TYPE_CHECKING, Any

from captum_alignment.study.cli._options import (
    Command,
    add_fields,
    add_machine_options,
    add_model_options,
    add_out,
    add_split_options,
    check_seeds,
    chosen,
    prepare,
    some,
)

if TYPE_CHECKING:
    import pandas as pd


def _roar_options(parser: argparse.ArgumentParser) -> None:
    from captum_alignment.study.fit import NETWORKS, TrainingConfig
    from captum_alignment.study.load import BUILT_IN
    from captum_alignment.study.roar import DEFAULTS, METHODS, MODES, PRESETS

    add_out(parser, "study")
    text = f"the setup of a paper, which other options override: {', '.join(PRESETS)}"
    parser.add_argument("--preset", metavar="NAME", help=text)
    model = add_model_options(parser, required=False)
    model("--retrain", metavar="SPEC", help="what is retrained (default: --model, untrained)")
    model("--network", metavar="NAME", help=f"without --model: {', '.join(NETWORKS)} (default: {DEFAULTS['network']})")
    add_split_options(parser)
    grid = parser.add_argument_group("grid").add_argument
    grid("--methods", nargs="+", metavar="NAME", help=f"some of {', '.join(BUILT_IN)} (default: {' '.join(METHODS)})")
    grid("--fractions", type=float, nargs="+", metavar="T", help="of the features (default: 0.2 0.4 0.6 0.8)")
    grid("--modes", nargs="+", metavar="NAME", help=f"{' and '.join(MODES)} (default: roar)")
    grid("--seeds", type=int, metavar="N", help=f"networks of each cell (default: {DEFAULTS['seeds']})")
    grid("--per", metavar="NAME", help="what is ranked: each pixel (default) or each value of a channel")
    grid("--absolute", action="store_true", help="rank by absolute values (default: the most positive are on top)")
    add_fields(parser.add_argument_group("training"), TrainingConfig)
    add_machine_options(parser)


def _roar(arguments: argparse.Namespace) -> None:
    from captum_alignment.study.roar import roar_options

    given = roar_options(vars(arguments))
    check_seeds(given)
    device = prepare(arguments)

    from captum_alignment.study.cli._sources import load_splits, load_subject, train_subject
    from captum_alignment.study.fit import TrainingConfig
    from captum_alignment.study.load import as_device
    from captum_alignment.study.roar import remove_and_retrain
    from captum_alignment.study.store import processes

    training = chosen(TrainingConfig, given)
    with processes() as group:
        target, retraining = as_device(device), TrainingConfig(**training)
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
    from captum_alignment.study.page import PERCENT, percent, points
    from captum_alignment.study.roar import areas

    rows: list[dict[str, Any]] = areas(cells).to_dict("records")  # pyright: ignore[reportAssignmentType] - its keys are names
    width = max(len(row["method"]) for row in rows)
    print(f"\narea under the accuracy, and percentage points beyond random, with {PERCENT} intervals over seeds")
    for row in rows:
        area = f"{percent(row['area']):>7} ({percent(row['area_low'])} to {percent(row['area_high'])})"
        beyond = f"{points(row['beyond_random']):>6}"
        print(f"{row['mode']:5}{row['method']:{width}}{area:>30}{beyond:>8}")


COMMANDS = (
    Command(
        "roar",
        "retrain without what attributions rank highest, and write a report",
        "Attribute every image by a network, replace the features that are ranked highest by their mean (ROAR) or all "
        "others (KAR), retrain from scratch, test, and write a report. Without --model the network that is explained "
        "is trained first. The same command continues an interrupted study, and one with more methods, fractions or "
        "seeds adds to it; under torchrun its processes share the work.",
        "captum-alignment roar --out runs/roar --methods saliency smoothgrad random",
        _roar_options,
        _roar,
    ),
)
