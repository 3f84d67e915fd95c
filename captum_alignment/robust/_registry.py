"""The attacks that have a name, alone and together, and what else `adversarial_distance` takes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_alignment._optional import WhenUsed

# The command line lists the names before anything that is slow is needed.
if TYPE_CHECKING:
    from captum_alignment import robust
    from captum_alignment._core import _foolbox_names as fb
    from captum_alignment._core._foolbox import AttackLike
else:
    robust, fb = WhenUsed("captum_alignment.robust"), WhenUsed("captum_alignment._core._foolbox_names")

_L1, _L2, _LINF = 1.0, 2.0, math.inf


@dataclass(frozen=True)
class Fallback:
    """An attack for the samples alone on which those before it have found nothing, or had no gradient to follow."""

    attack: AttackLike


#: name -> {norm: what makes the attack}. The settings are for distances of hundreds of images in minutes.
ATTACKS: dict[str, dict[float, Callable[[], AttackLike]]] = {
    "rival-search": {p: lambda p=p: robust.RivalSearch(norm=p) for p in (_L1, _L2, _LINF)},
    "gradient": {p: lambda p=p: robust.GradientAttack(norm=p) for p in (_L2, _LINF)},
    "deepfool": {p: lambda p=p: robust.DeepFool(norm=p) for p in (_L2, _LINF)},
    "fab": {p: lambda p=p: robust.FAB(norm=p) for p in (_L1, _L2, _LINF)},
    "ddn": {_L2: lambda: fb.DDNAttack(steps=100)},
    "fmn": {
        _L1: lambda: fb.L1FMNAttack(steps=200),
        _L2: lambda: fb.L2FMNAttack(steps=100),
        _LINF: lambda: fb.LInfFMNAttack(steps=100),
    },
    "pgd": {_L2: lambda: fb.L2PGD(steps=40), _LINF: lambda: fb.LinfPGD(steps=40, random_start=True)},
    # A twelfth of the steps of the paper's setting; the larger stepsize makes up for most of them.
    "carlini-wagner": {
        _L2: lambda: fb.L2CarliniWagnerAttack(binary_search_steps=4, steps=100, stepsize=0.1, initial_const=0.1)
    },
    "ead": {_L1: lambda: fb.EADAttack(binary_search_steps=4, steps=200)},
    "boundary": {_L2: lambda: fb.BoundaryAttack(steps=5000)},
    "hop-skip-jump": {p: lambda p=p: robust.DecisionSearch(norm=p) for p in (_L2, _LINF)},
}


def _fast(norm: float) -> dict[str, AttackLike | Fallback]:
    if norm == _L1:
        # Planes move few features far, and on networks trained to be robust may lead astray: hops and FMN do not.
        return {"rival-search": robust.RivalSearch(norm=norm, rivals=2, hops=6), "fmn": fb.L1FMNAttack(steps=50)}
    return {"rival-search": robust.RivalSearch(norm=norm)}


def _thorough(norm: float) -> dict[str, AttackLike | Fallback]:
    search = robust.RivalSearch(norm=norm, rivals=9, reach=1.4, likely=3, starts=3, hops=12)
    # There is no decision-based attack in l_1: that in l_2 finds a point at least.
    fallback = {"hop-skip-jump": Fallback(robust.DecisionSearch(norm=max(norm, _L2)))}
    if norm == _L1:
        # There "fast" ends in other valleys, which are nearer on one sample in six of networks trained to be robust.
        return {**_fast(norm), "rival-search-2": search, "fmn-2": ATTACKS["fmn"][norm](), **fallback}
    return {"rival-search": search, **fallback}


def _paper_l2() -> dict[str, AttackLike | Fallback]:
    # The settings of Etmann et al. 2019 (Foolbox 1.8's defaults), which are not Foolbox 3's.
    return {
        "gradient": robust.GradientAttack(norm=2),
        "deepfool": robust.DeepFool(norm=2, steps=100),
        "carlini-wagner": fb.L2CarliniWagnerAttack(
            binary_search_steps=5, steps=1000, stepsize=5e-3, confidence=0, initial_const=1e-2
        ),
    }


def _paper_linf() -> dict[str, AttackLike | Fallback]:
    # The paper attacks in l_2 only; these are its counterparts, with PGD for nets on which the linear step fails.
    return {
        "gradient": robust.GradientAttack(norm=_LINF),
        "deepfool": robust.DeepFool(norm=_LINF, steps=100),
        "fmn": ATTACKS["fmn"][_LINF](),
        "pgd": ATTACKS["pgd"][_LINF](),
    }


#: name -> {norm: what makes {name: attack}}.
PORTFOLIOS: dict[str, dict[float, Callable[[], dict[str, AttackLike | Fallback]]]] = {
    "paper": {_L2: _paper_l2, _LINF: _paper_linf},
    "fast": {p: lambda p=p: _fast(p) for p in (_L1, _L2, _LINF)},
    "thorough": {p: lambda p=p: _thorough(p) for p in (_L1, _L2, _LINF)},
}


def attack_names(norm: float | None = None) -> tuple[str, ...]:
    """The names that `adversarial_distance` knows, of portfolios first; with ``norm`` those that exist in it.

    Args:
        norm: 1, 2 or inf, the norm of perturbations.

    Raises:
        ValueError: another norm.

    >>> "fast" in attack_names(2)
    True
    """
    return tuple(name for name, made in {**PORTFOLIOS, **ATTACKS}.items() if norm is None or norm in made)


def resolve_attacks(attacks: Any, norm: float) -> dict[str, AttackLike | Fallback]:
    """``attacks`` as {name: attack}: one, a sequence or a mapping of names, ``FILE.py:NAME`` and attacks.

    Raises:
        TypeError: something that is neither a Foolbox attack nor callable.
        ValueError: an unknown name, one that does not exist in ``norm``, a file or a name in it that is not there, no
            attack at all.

    >>> list(resolve_attacks(["deepfool"], norm=2))
    ['deepfool']
    """
    found: dict[str, AttackLike | Fallback] = {}
    if isinstance(attacks, Mapping):
        found.update((str(name), _ready(attack, norm, str(name))) for name, attack in attacks.items())
    else:
        for attack in attacks if isinstance(attacks, Sequence) and not isinstance(attacks, str) else [attacks]:
            if isinstance(attack, str) and attack in PORTFOLIOS:
                made = _made(PORTFOLIOS, attack, norm)()
            else:
                ready = _ready(attack, norm)
                short = attack.rpartition(":")[2] if isinstance(attack, str) else _name(ready)
                made = {short: ready}
            for name, one in made.items():
                # Two attacks of one class keep both of their results.
                same = sum(other == name or other.startswith(f"{name}-") for other in found)
                found[f"{name}-{same + 1}" if name in found else name] = one
    if not found:
        raise ValueError("attacks: got none, expected at least one")
    return found


def _ready(attack: Any, norm: float, name: str | None = None) -> AttackLike | Fallback:
    """One attack out of its name, its file, or itself; also one of a portfolio that was resolved before."""
    if isinstance(attack, str):
        attack = _from_file(attack) if ":" in attack else _made(ATTACKS, attack, norm)()
    if isinstance(attack, type) or not (isinstance(attack, (fb.Attack, Fallback)) or callable(attack)):
        name = name or _name(attack)
        hint = "; make an instance of it" if isinstance(attack, type) else ""
        raise TypeError(f"attacks: {name!r} is {attack!r}, expected a Foolbox attack or a callable{hint}")
    return attack  # pyright: ignore[reportReturnType] - what a callable returns is checked when it runs


def _name(attack: Any) -> str:
    return getattr(attack, "__name__", type(attack).__name__)


def _made(table: Mapping[str, Mapping[float, Any]], name: str, norm: float) -> Any:
    if name not in table:
        raise ValueError(
            f"attacks: got {name!r}, expected one of {', '.join(attack_names(norm))}, FILE.py:NAME, or your own attacks"
        )
    if norm not in table[name]:
        norms = " and ".join(f"{p:g}" for p in table[name])
        raise ValueError(
            f"attacks: {name!r} exists in norm {norms}, got norm={norm:g}; in that there are "
            f"{', '.join(attack_names(norm))}"
        )
    return table[name][norm]


def _from_file(spec: str) -> Any:
    """The attack or function called NAME in ``FILE.py:NAME``; an instance of it where it is a class."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"attacks: got {spec!r}, expected FILE.py:NAME, and there is no Python file {file!r}")
    loaded = importlib.util.spec_from_file_location(path.stem, path)
    if loaded is None or loaded.loader is None:
        raise ValueError(f"attacks: {file!r} cannot be read as a Python file")
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    if not hasattr(module, name):
        raise ValueError(f"attacks: {file!r} has no {name!r}")
    attack = getattr(module, name)
    return attack() if isinstance(attack, type) else attack
