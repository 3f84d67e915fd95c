"""What the commands share: options, and the threads and the device that they run on."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

#: The options of `add_training_options`.
TRAINING = ("epochs", "batch_size", "optimizer", "learning_rate", "decay_every", "weight_decay", "augment")

#: What `argparse.ArgumentParser.add_subparsers` returns.
Commands: TypeAlias = Any


def add_model_options(parser: argparse.ArgumentParser, *, required: bool) -> Any:
    """The options of `load_model`; the function that adds more to their group."""
    add = parser.add_argument_group("model").add_argument
    forms = "torchvision:NAME, timm:NAME, FILE.py:FACTORY, MODULE:FACTORY"
    add("--model", required=required, metavar="SPEC", help=forms)
    add("--weights", metavar="FILE", help="state_dict or safetensors; or DEFAULT, the library's own")
    add("--mean", type=float, nargs="+", metavar="X", help="input normalisation, which becomes part of the model")
    add("--std", type=float, nargs="+", metavar="X")
    add("--num-classes", type=int, metavar="K", help="of a torchvision or timm model")
    return add


def add_data_options(parser: argparse.ArgumentParser, *, required: bool) -> Any:
    """The options of `load_dataset` but for the split; the function that adds more to their group."""
    add = parser.add_argument_group("data").add_argument
    forms = "digits, mnist, fashion-mnist, cifar10, cifar100, imagenet, imagefolder:PATH, npz:FILE, FILE.py:FACTORY"
    add("--data", required=required, metavar="SPEC", help=forms + ("" if required else " (default: digits)"))
    add("--data-root", type=Path, metavar="DIR", help="where torchvision's data sets lie")
    add("--download", action="store_true", help="let torchvision download what is not there")
    add("--resize", type=int, metavar="PIXELS", help="of the shorter side")
    add("--crop", type=int, metavar="PIXELS", help="of the square in the middle")
    return add


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """What `prepare` reads."""
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: this process's GPU where there is one)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads (default: 1; small networks gain little from more, and lose much where cores are shared)",
    )


def some(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of ``names`` that were given."""
    return {name: given[name] for name in names if name in given}


def size(text: str) -> int | None:
    """A number of samples, or None for "all"."""
    return None if text == "all" else int(text)


def prepare(arguments: argparse.Namespace) -> str:
    """Set the number of threads; the device that was asked for, else this process's GPU where there is one."""
    if arguments.threads < 1:
        raise ValueError(f"threads: got {arguments.threads}, expected at least 1")

    import torch

    from captum_alignment.study.store import local_rank

    torch.set_num_threads(arguments.threads)
    if "device" in arguments:
        return arguments.device
    return f"cuda:{local_rank() % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Training and test images: what `load_splits` reads."""
    data = add_data_options(parser, required=False)
    data("--train-data", metavar="SPEC", help="training images of data that have no split of their own")
    data("--train-size", type=size, metavar="N", help="training images, or 'all' (default)")
    data("--test-size", type=size, metavar="N", help="test images, or 'all' (default)")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """The fields of `Retraining`."""
    training = parser.add_argument_group("training").add_argument
    training("--epochs", type=int, metavar="N", help="(default: 15)")
    training("--batch-size", type=int, metavar="N", help="(default: 50)")
    training("--optimizer", metavar="NAME", help="adam (default) or sgd with momentum .9")
    training("--learning-rate", type=float, metavar="X", help="(default: 0.002)")
    training("--decay-every", type=int, metavar="N", help="epochs (default: along a cosine)")
    training("--weight-decay", type=float, metavar="X", help="(default: 0)")
    training("--augment", action="store_true", help="flip and shift training images at random")


def check_seeds(given: dict[str, Any]) -> None:
    """`ValueError` unless there is at least one seed."""
    if given["seeds"] < 1:
        raise ValueError(f"--seeds: got {given['seeds']}, expected at least 1")
