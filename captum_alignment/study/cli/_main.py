"""The command ``captum-alignment``."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import captum_alignment
from captum_alignment.study.cli import _evaluate, _faithfulness, _roar, _study
from captum_alignment.study.cli._options import Command, say, wrapped

COMMANDS: tuple[Command, ...] = (*_study.COMMANDS, *_evaluate.COMMANDS, *_roar.COMMANDS, *_faithfulness.COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (None: the process's own); the exit code is 0, 2 on an error, 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    arguments.command = shlex.join(["captum-alignment", *(sys.argv[1:] if argv is None else argv)])
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        say("interrupted; the same command continues with what is finished", error=True)
        return 130
    except ModuleNotFoundError as error:
        if arguments.debug:
            raise
        hint = (
            f"{error.name.partition('.')[0]} is missing: pip install 'captum-alignment[study]'" if error.name else error
        )
        say(f"captum-alignment: {hint}", error=True)
        return 2
    except Exception as error:
        if arguments.debug:
            raise
        from captum_alignment.study.load import reason

        expected = isinstance(error, (ValueError, TypeError, OSError, ImportError, MemoryError))
        # Without a message that could be printed there is its type.
        what = str(error) if expected and ":" in reason(error) else f"{reason(error)} (--debug shows where)"
        say(f"captum-alignment: {what}", error=True)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that gets the options of its command when it is used."""

    def __init__(self, *, command: Command | None = None, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._command = command

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - its stub has overloads
        if self._command is not None:
            self._command.options(self)
            self.add_argument("--debug", action="store_true", default=False, help="show the traceback of an error")
            self.set_defaults(run=self._command.run)
            self._command = None
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="captum-alignment",
        description=wrapped("Adversarial robustness, saliency alignment and what links them."),
        epilog="captum-alignment COMMAND --help lists the options of a command, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"captum-alignment {captum_alignment.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        commands.add_parser(
            command.name,
            command=command,
            help=command.help,
            description=wrapped(command.description),
            epilog=f"example:\n  {command.example}",
            argument_default=argparse.SUPPRESS,
        )
    return parser
