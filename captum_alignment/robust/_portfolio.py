"""The attacks behind the names "paper", "fast" and "thorough"."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foolbox import attacks as fb
from foolbox.attacks.base import Attack

from captum_alignment._core._foolbox import AttackLike
from captum_alignment.robust._deepfool import DeepFool
from captum_alignment.robust._gradient_attack import GradientAttack
from captum_alignment.robust._rival_search import RivalSearch


def _paper_l2() -> dict[str, AttackLike]:
    # The settings of Etmann et al. 2019 (Foolbox 1.8's defaults), which are not Foolbox 3's.
    return {
        "gradient": GradientAttack(norm=2),
        "deepfool": DeepFool(norm=2, steps=100),
        "carlini-wagner": fb.L2CarliniWagnerAttack(
            binary_search_steps=5, steps=1000, stepsize=5e-3, confidence=0, initial_const=1e-2
        ),
    }


def _paper_linf() -> dict[str, AttackLike]:
    # The paper attacks in l_2 only; these are its counterparts, with PGD for nets on which the linear step fails.
    return {
        "gradient": GradientAttack(norm=math.inf),
        "deepfool": DeepFool(norm=math.inf, steps=100),
        "fmn": fb.LInfFMNAttack(steps=100),
        "pgd": fb.LinfPGD(steps=40, random_start=True),
    }


def _fast(norm: float) -> dict[str, AttackLike]:
    return {"rival-search": RivalSearch(norm=norm)}


def _thorough(norm: float) -> dict[str, AttackLike]:
    return {
        "rival-search": RivalSearch(
            norm=norm, rivals=9, reach=1.4, contenders=4, likely=5, short=8, long=40, projections=42
        )
    }


def _fast_l1() -> dict[str, AttackLike]:
    return {"fmn": fb.L1FMNAttack(steps=200), "ead": fb.EADAttack(binary_search_steps=4, steps=200)}


#: (name, norm) -> a function that makes the attacks.
PORTFOLIOS: dict[tuple[str, float], Callable[[], dict[str, AttackLike]]] = {
    ("paper", 2.0): _paper_l2,
    ("paper", math.inf): _paper_linf,
    ("fast", 1.0): _fast_l1,
    ("fast", 2.0): lambda: _fast(2),
    ("fast", math.inf): lambda: _fast(math.inf),
    ("thorough", 2.0): lambda: _thorough(2),
    ("thorough", math.inf): lambda: _thorough(math.inf),
}


def resolve_attacks(attacks: Any, norm: float) -> dict[str, AttackLike]:
    """``attacks`` as {name: attack}: a portfolio's name, one attack, a sequence or a mapping of attacks.

    Raises:
        TypeError: something that is neither a Foolbox attack nor callable.
        ValueError: an unknown name, no portfolio of that name in ``norm``, no attack at all.
    """
    if isinstance(attacks, str):
        if (attacks, norm) not in PORTFOLIOS:
            known = ", ".join(f"{name!r} (norm={p:g})" for name, p in PORTFOLIOS)
            raise ValueError(f"attacks: got {attacks!r} with norm={norm:g}, expected {known}, or your own attacks")
        return PORTFOLIOS[attacks, norm]()
    if isinstance(attacks, Mapping):
        found = {str(name): attack for name, attack in attacks.items()}
    else:
        several = attacks if isinstance(attacks, Sequence) else [attacks]
        found = {}
        for attack in several:
            name = getattr(attack, "__name__", type(attack).__name__)
            # Two attacks of one class keep both of their results.
            same = sum(other == name or other.startswith(f"{name}-") for other in found)
            found[f"{name}-{same + 1}" if same else name] = attack
    if not found:
        raise ValueError("attacks: got none, expected at least one")
    for name, attack in found.items():
        if isinstance(attack, type) or not (isinstance(attack, Attack) or callable(attack)):
            hint = "; make an instance of it" if isinstance(attack, type) else ""
            raise TypeError(f"attacks: {name!r} is {attack!r}, expected a Foolbox attack or a callable{hint}")
    return found
