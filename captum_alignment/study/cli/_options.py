"""What the commands share: options, and the threads and the device that they run on."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args

_KINDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Command:
    """A command: what the list of commands says, what its own help adds, and an example.

    Attributes:
        options: adds its options to a parser; called when the command is used, because they name what there is, in
            rooms that no other command needs.
        run: with the parsed arguments; those that were not given are absent.
    """

    name: str
    help: str
    description: str
    example: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_fields(
    group: Any,
    config: type,
    only: Iterable[str] = (),
    *,
    but: Iterable[str] = (),
    known: Mapping[str, Iterable[str]] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """An option for each field of the dataclass ``config``, or for some.

    The metadata of a field have its ``help``, and where it needs them ``metavar``, ``flags`` (its options, if not
    its name), ``nargs`` and ``none``, the word for None.

    Args:
        group: a parser or a group of one.
        known: names to list in the help of fields. defaults: other ones than the dataclass has.
    """
    for field in fields(config):
        if field.name in but or (only and field.name not in only):
            continue
        about = field.metadata
        flags = about.get("flags", (f"--{field.name.replace('_', '-')}",))
        text = about["help"]
        if known and field.name in known:
            text += f": {', '.join(known[field.name])}"
        if field.type is bool:
            group.add_argument(*flags, dest=field.name, action="store_true", help=text)
            continue
        default = (defaults or {}).get(field.name, field.default)
        if default is not MISSING and "(default" not in text:
            text += f" (default: {_shown(default, about)})"
        group.add_argument(
            *flags,
            dest=field.name,
            metavar=about.get("metavar"),
            nargs=about.get("nargs", _count(field.type)),
            type=_reader(field.type, about.get("none")),
            help=text.replace("%", "%%"),
        )


def chosen(config: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``config`` that were given, lists as tuples."""
    found = {field.name: given[field.name] for field in fields(config) if field.name in given}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _shown(value: Any, about: Mapping[str, Any]) -> str:
    if value is None:
        return about.get("none", "none")
    return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in _listed(value))


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (tuple, list)) else (value,)


def _count(annotation: Any) -> int | str | None:
    """How many values an option has: as many as a tuple, "+" for one of any length."""
    kinds = get_args(annotation) if getattr(annotation, "__origin__", None) is tuple else ()
    if not kinds:
        return None
    return "+" if Ellipsis in kinds else len(kinds)


def _reader(annotation: Any, none: str | None) -> Callable[[str], Any]:
    """What turns a word of the command line into a value: the first kind of the annotation that takes it."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind not in (NoneType, Ellipsis, Any)] or [str]

    def read(text: str) -> Any:
        if none is not None and text == none:
            return None
        for kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
        expected = " or ".join([*(_KINDS[kind] for kind in kinds), *([repr(none)] if none else [])])
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")

    return read


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    text = f"folder to write to: new, empty, or of the same {what}"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)


def add_model_options(parser: argparse.ArgumentParser, *, required: bool) -> Any:
    """The options of `load_model`; the function that adds more to their group."""
    add = parser.add_argument_group("model").add_argument
    forms = "torchvision:NAME, timm:NAME, FILE.py:FACTORY, MODULE:FACTORY"
    add("--model", required=required, metavar="SPEC", help=forms)
    add(
        "--weights",
        metavar="FILE",
        help="state_dict or safetensors, FILE:KEY for one of several; or DEFAULT, the library's own",
    )
    add("--mean", type=float, nargs="+", metavar="X", help="input normalisation, which becomes part of the model")
    add("--std", type=float, nargs="+", metavar="X")
    add("--num-classes", type=int, metavar="K", help="of a torchvision or timm model")
    return add


def add_data_options(parser: argparse.ArgumentParser, *, required: bool) -> Any:
    """The options of `load_dataset` but for the split; their group."""
    from captum_alignment.study.load import FORMS

    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--data", required=required, metavar="SPEC", help=", ".join(FORMS) + ("" if required else " (default: digits)"))
    add("--data-root", type=Path, metavar="DIR", help="where torchvision's data sets lie")
    add("--download", action="store_true", help="download what is not there")
    add("--resize", type=int, metavar="PIXELS", help="of the shorter side")
    add("--crop", type=int, metavar="PIXELS", help="of the square in the middle")
    help = "nearest, bilinear or bicubic (default: that of the model's weights, or bilinear)"
    add("--interpolation", metavar="NAME", help=help)
    return group


def fitting(given: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """How images are brought to one size: as was asked for, else as the weights of ``model`` were evaluated."""
    own = getattr(model, "resize", None)
    found = {name: given.get(name, getattr(model, name, None)) for name in ("resize", "crop")}
    interpolation = given.get("interpolation", getattr(own, "interpolation", None))
    return found if interpolation in (None, "bilinear") else found | {"interpolation": interpolation}


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
    add = add_data_options(parser, required=False).add_argument
    add("--train-data", metavar="SPEC", help="training images of data that have no split of their own")
    add("--train-size", type=size, metavar="N", help="training images, or 'all' (default)")
    add("--test-size", type=size, metavar="N", help="test images, or 'all' (default)")


def check_seeds(given: dict[str, Any]) -> None:
    """`ValueError` unless there is at least one seed."""
    if given["seeds"] < 1:
        raise ValueError(f"--seeds: got {given['seeds']}, expected at least 1")


def wrapped(text: str) -> str:
    """``text`` in lines that fit the terminal, a list item's further lines below its first word."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, shutil.get_terminal_size().columns - 1, subsequent_indent=indent)


def say(text: str, *, error: bool = False) -> None:
    """Print a sentence: wrapped where somebody reads it, one line where a program does."""
    stream = sys.stderr if error else sys.stdout
    print(wrapped(text) if stream.isatty() else text, file=stream)
