"""Distances to the decision boundary and the attacks that find them, in Foolbox's terms."""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment._core._piecewise import NotPiecewiseLinear
    from captum_alignment.robust._certified_distance import certified_distance
    from captum_alignment.robust._decision import DecisionSearch
    from captum_alignment.robust._deepfool import DeepFool
    from captum_alignment.robust._distance import adversarial_distance
    from captum_alignment.robust._fab import FAB
    from captum_alignment.robust._gradient_attack import GradientAttack
    from captum_alignment.robust._perturbation import FoolboxPerturbation
    from captum_alignment.robust._registry import attack_names, resolve_attacks
    from captum_alignment.robust._result import AdversarialDistance
    from captum_alignment.robust._rival_search import RivalSearch

__all__ = [
    "FAB",
    "AdversarialDistance",
    "DecisionSearch",
    "DeepFool",
    "FoolboxPerturbation",
    "GradientAttack",
    "NotPiecewiseLinear",
    "RivalSearch",
    "adversarial_distance",
    "attack_names",
    "certified_distance",
    "resolve_attacks",
]

# Loaded on first use: the command line reads the names of attacks before foolbox is there.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "._core._piecewise": ["NotPiecewiseLinear"],
        "_certified_distance": ["certified_distance"],
        "_decision": ["DecisionSearch"],
        "_deepfool": ["DeepFool"],
        "_distance": ["adversarial_distance"],
        "_fab": ["FAB"],
        "_gradient_attack": ["GradientAttack"],
        "_perturbation": ["FoolboxPerturbation"],
        "_registry": ["attack_names", "resolve_attacks"],
        "_result": ["AdversarialDistance"],
        "_rival_search": ["RivalSearch"],
    },
)
