"""The attacks that the command line can name, and what the manifest says of any others."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import foolbox as fb

from captum_alignment.robust import DeepFool, GradientAttack
from captum_alignment.study.evaluation._config import PORTFOLIOS

#: What each name makes, given the norm. DDN and Carlini-Wagner exist in l_2 only.
NAMED: dict[str, Callable[[float], Any]] = {
    "gradient": lambda norm: GradientAttack(norm=norm),
    "deepfool": lambda norm: DeepFool(norm=norm),
    "ddn": lambda norm: fb.attacks.DDNAttack(steps=100),  # noqa: ARG005
    # A twelfth of the steps of the paper's setting; the larger stepsize makes up for most of them.
    "carlini-wagner": lambda norm: fb.attacks.L2CarliniWagnerAttack(  # noqa: ARG005
        binary_search_steps=4, steps=100, stepsize=0.1, initial_const=0.1
    ),
}


def make_attacks(attacks: Any, norm: float = 2) -> Any:
    """What `adversarial_distance` takes: names out of `NAMED` become {name: attack}, anything else stays.

    Raises:
        ValueError: a name that is not known, or an attack that does not exist in this norm.
    """
    names = (attacks,) if isinstance(attacks, str) else attacks
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        return attacks
    if len(names) == 1 and names[0] in PORTFOLIOS:
        return names[0]
    for name in names:
        if name not in NAMED:
            raise ValueError(
                f"attacks: got {name!r}, expected some of {' '.join(NAMED)}, or one of {' '.join(PORTFOLIOS)} alone"
            )
        if name in ("ddn", "carlini-wagner") and norm != 2:
            raise ValueError(f"attacks: {name} minimises the l_2 norm, got norm {norm:g}; use gradient or deepfool")
    return {name: NAMED[name](norm) for name in names}


def describe_attacks(attacks: Any) -> list[str]:
    """One line per attack that tells it from another, with its settings; for the manifest."""
    if isinstance(attacks, str):
        return [attacks]
    if isinstance(attacks, Mapping):
        return [f"{name}: {_describe(attack)}" for name, attack in attacks.items()]
    return [_describe(attack) for attack in (attacks if isinstance(attacks, Sequence) else [attacks])]


def _describe(attack: Any) -> str:
    name = getattr(attack, "__qualname__", type(attack).__qualname__)
    settings = {key: value for key, value in sorted(getattr(attack, "__dict__", {}).items()) if _is_plain(value)}
    return f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and not math.isnan(value))
