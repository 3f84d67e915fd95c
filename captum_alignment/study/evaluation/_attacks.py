"""What the manifest says of attacks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from captum_alignment.robust import resolve_attacks


def describe_attacks(attacks: Any, norm: float = 2) -> list[str]:
    """One line for each of ``attacks`` that tells it from another, with its settings; the name of a portfolio alone.

    Raises:
        TypeError, ValueError: as `resolve_attacks`.
    """
    if isinstance(attacks, Mapping):
        return [f"{name}: {_describe(attack)}" for name, attack in resolve_attacks(attacks, norm).items()]
    named = isinstance(attacks, str) or not isinstance(attacks, Sequence)
    return [_line(attack, norm) for attack in ([attacks] if named else attacks)]


def _line(attack: Any, norm: float) -> str:
    if not isinstance(attack, str):
        return _describe(attack)
    made = resolve_attacks(attack, norm)
    if ":" not in attack and list(made) != [attack]:
        return attack  # a portfolio, whose attacks have other names
    return "; ".join(f"{name}: {_describe(one)}" for name, one in made.items())


def _describe(attack: Any) -> str:
    name = getattr(attack, "__qualname__", type(attack).__qualname__)
    settings = {key: value for key, value in sorted(getattr(attack, "__dict__", {}).items()) if _is_plain(value)}
    return f"{name}({', '.join(f'{key}={_shown(value)}' for key, value in settings.items())})"


def _shown(value: Any) -> Any:
    """The same for 2 and for 2.0, which make the same attack."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and not math.isnan(value))
