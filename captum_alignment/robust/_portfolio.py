"""The attacks behind the names "paper" and "fast"."""

from collections.abc import Mapping, Sequence
from typing import Any

from foolbox import attacks as fb
from foolbox.attacks.base import Attack

from captum_alignment._core._foolbox import AttackLike
from captum_alignment.robust._gradient_attack import GradientAttack

INF = float("inf")


def _l2_paper() -> dict[str, AttackLike]:
    # The settings of Etmann et al. 2019 (Foolbox 1.8's defaults), which are not Foolbox 3's.
    return {
        "gradient": GradientAttack(norm=2),
        "deepfool": fb.L2DeepFoolAttack(steps=100, candidates=10),
        "carlini-wagner": fb.L2CarliniWagnerAttack(
            binary_search_steps=5, steps=1000, stepsize=5e-3, confidence=0, initial_const=1e-2
        ),
    }


def _linf_paper() -> dict[str, AttackLike]:
    # The paper attacks in l_2 only; these are its counterparts, with PGD for nets on which the linear step fails.
    return {
        "gradient": GradientAttack(norm=INF),
        "deepfool": fb.LinfDeepFoolAttack(steps=100, candidates=10),
        "fmn": fb.LInfFMNAttack(steps=100),
        "pgd": fb.LinfPGD(steps=40, random_start=True),
    }


#: (name, norm) -> a function that makes the attacks.
PORTFOLIOS = {
    ("paper", 2.0): _l2_paper,
    ("paper", INF): _linf_paper,
    ("fast", 2.0): lambda: {"deepfool": fb.L2DeepFoolAttack(steps=50, candidates=10), "ddn": fb.DDNAttack(steps=100)},
    ("fast", INF): lambda: {
        "deepfool": fb.LinfDeepFoolAttack(steps=50, candidates=10),
        "pgd": fb.LinfPGD(steps=40, random_start=True),
    },
    ("fast", 1.0): lambda: {"fmn": fb.L1FMNAttack(steps=200), "ead": fb.EADAttack(binary_search_steps=4, steps=200)},
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
