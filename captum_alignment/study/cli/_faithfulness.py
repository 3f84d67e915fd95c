"""``captum-alignment supplement``."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from captum_alignment.study.cli._options import (
    Command,
    add_fields,
    add_machine_options,
    add_out,
    add_split_options,
    check_seeds,
    chosen,
    prepare,
    some,
)


def _supplement_options(parser: argparse.ArgumentParser) -> None:
    from captum_alignment.study.faithfulness import CHOICES
    from captum_alignment.study.faithfulness import DEFAULTS as OWN
    from captum_alignment.study.fit import NETWORKS, TrainingConfig
    from captum_alignment.study.roar import DEFAULTS

    add_out(parser, "study")
    add = parser.add_argument
    add("--study", type=Path, metavar="DIR", help="take the networks, records and data of this finished study")
    add("--trainings", nargs="+", metavar="NAME", help=f"some of {', '.join(CHOICES)}")
    add("--network", metavar="NAME", help=f"{', '.join(NETWORKS)} (default: {DEFAULTS['network']})")
    add_split_options(parser)
    grid = parser.add_argument_group("grid").add_argument
    grid("--fractions", type=float, nargs="+", metavar="T", help="of the pixels (default: 0.2 0.4 0.6 0.8)")
    grid("--seeds", type=int, metavar="N", help=f"retrainings of each cell (default: {OWN['seeds']})")
    grid("--signed", action="store_true", help="rank by signed gradients (default: by absolute values)")
    add_fields(parser.add_argument_group("training"), TrainingConfig)
    add_machine_options(parser)


def _supplement(arguments: argparse.Namespace) -> None:
    from captum_alignment.study.faithfulness import DEFAULTS as OWN
    from captum_alignment.study.fit import TrainingConfig
    from captum_alignment.study.roar import roar_options

    given = roar_options({**OWN, **vars(arguments)})
    check_seeds(given)
    _check_study(vars(arguments), TrainingConfig.__dataclass_fields__)
    device = prepare(arguments)

    from captum_alignment.study.cli._sources import load_splits
    from captum_alignment.study.faithfulness import explain_study, run_faithfulness, verdict
    from captum_alignment.study.load import as_device
    from captum_alignment.study.store import processes

    with processes() as group:
        common = {
            "out": arguments.out,
            "fractions": given["fractions"],
            "seeds": range(given["seeds"]),
            "absolute": "signed" not in given,
            "device": as_device(device),
        }
        if "study" in given:
            table = explain_study(given["study"], **common, **some(given, "data_root", "download"))
        else:
            train, test, geometry = load_splits(given, None)
            table = run_faithfulness(
                train,
                test,
                training=chosen(TrainingConfig, given),
                about={"data": given["data"], **geometry},
                **common,
                **some(given, "network", "trainings"),
            )
        if group.rank == 0:
            print(f"\n{verdict(table)}\n{arguments.out / 'report.html'}")


def _check_study(given: dict[str, Any], training: Iterable[str]) -> None:
    """`ValueError` for options that a finished study has decided."""
    own = ("trainings", "network", "data", "train_data", "train_size", "test_size", "resize", "crop", *training)
    for name in own if "study" in given else ():
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')}: got it beside --study, which decides it")


COMMANDS = (
    Command(
        "supplement",
        "ask whether robust networks have faithful saliency",
        "Train networks in several ways and strengths, or take those of a finished study, measure robustness and "
        "alignment, run ROAR of the saliency of each, and write a report: the supplement of Zeng et al. 2021. The same "
        "command continues.",
        "captum-alignment supplement --out runs/supplement --trainings standard pgd-l2",
        _supplement_options,
        _supplement,
    ),
)
