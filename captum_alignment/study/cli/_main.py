"""The command ``captum-alignment``."""

import argparse
import sys
from collections.abc import Sequence

from captum_alignment.study.cli import _evaluate, _faithfulness, _roar, _study


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
        hint = (
            f"{error.name.partition('.')[0]} is missing: pip install 'captum-alignment[study]'" if error.name else error
        )
        print(f"captum-alignment: {hint}", file=sys.stderr)
        return 2
    except Exception as error:
        if arguments.debug:
            raise
        expected = isinstance(error, (ValueError, TypeError, OSError, ImportError, MemoryError))
        what = str(error) if expected else f"{type(error).__name__}: {error} (--debug shows where)"
        print(f"captum-alignment: {what}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-alignment", description="Adversarial robustness, saliency alignment and what links them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (*_study.COMMANDS, *_evaluate.COMMANDS, *_roar.COMMANDS, *_faithfulness.COMMANDS):
        command(commands).add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
