"""Every public docstring says what a user needs: shapes, units, errors, the source, and an example that runs."""

import dataclasses
import inspect
import re

import pytest

import captum_alignment
from captum_alignment import attr, metrics, robust, training

RULES = {
    "shape": r"\(N\b|\(N,",
    "unit": r"unit|\[0, 1\]|\[-1, 1\]|probabilit|bounds|pixel|score|radius|weight|epsilon",
    "errors": r"Raises:|[Ee]rrors as",
    "source": r"\b(19|20)\d\d\b",
    "example": r">>> ",
}

# What a name has no need of.
NOT_NEEDED = {
    "shape": {
        # Foolbox attacks, callbacks and data sets have the interface of their hosts, which their examples show.
        *("FAB", "DeepFool", "GradientAttack", "RivalSearch", "L2SignPGD", "AdversarialTraining", "SaliencyTargets"),
        *("LipschitzRegularization", "RegularizationCallback", "SkorchRegularization", "Distillation", "Shared"),
        "EvaluationCallback",
        *("alignment_null", "linearity_profile"),  # those of `alignment` and of `linear_analysis`
        *("DecisionSearch", "SkorchAdversarialTraining", "attack_names", "resolve_attacks", "suggest_weights"),
    },
    # What has none: ranks, marks, maps of any scale.
    "unit": {
        *("Shared", "randomization_check", "Explainer", "permute_maps", "threshold_maps", "SaliencyTargets"),
        *("GeneratedAttribution", "Distillation", "explainer_loss", "LipschitzRegularization"),
        *("LayerInputs", "attack_names", "resolve_attacks"),
    },
    "errors": {"Shared", "L2SignPGD", "LipschitzRegularization", "permute_maps", "threshold_maps", "KinkedUnits"},
    # Adapters, containers, and what follows from a definition that stands elsewhere.
    "source": {
        *("Shared", "FoolboxPerturbation", "LipschitzRegularization", "RegularizationCallback", "Regularizer"),
        *("SkorchRegularization", "SaliencyTargets", "permute_maps", "AlignmentRegularizer", "EdgeAlignment"),
        *("KinkedUnits", "LayerInputs", "attack_names", "resolve_attacks", "suggest_weights", "RivalSearch"),
    },
    "example": set(),
}


def is_result(item) -> bool:
    """Whether users get ``item`` back and do not make it."""
    return dataclasses.is_dataclass(item) or (inspect.isclass(item) and issubclass(item, tuple))


def text_of(item) -> str:
    """The docstring of a function; of a class its own and those of its public methods."""
    parts = [inspect.getdoc(item) or ""]
    if inspect.isclass(item):
        own = (value for name, value in vars(item).items() if inspect.isfunction(value) and not name.startswith("_"))
        parts += [inspect.getdoc(method) or "" for method in own]
    return "\n".join(parts)


PUBLIC = {
    name: getattr(room, name)
    for room in (captum_alignment, attr, metrics, robust, training)
    for name in room.__all__
    if name not in ("NotPiecewiseLinear", "LEVEL")  # an error says all in its message; a number
}
CALLED = {name: item for name, item in PUBLIC.items() if not is_result(item)}


@pytest.mark.parametrize("rule", RULES)
def test_docstrings_have_what_a_user_needs(rule):
    missing = [name for name, item in CALLED.items() if not re.search(RULES[rule], text_of(item))]
    assert sorted(set(missing) - NOT_NEEDED[rule]) == []


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - CALLED.keys()))
def test_a_result_says_what_each_field_holds(name):
    text = text_of(PUBLIC[name])
    assert re.search(RULES["shape"], text) or name == "WeightSweep"  # one number for each weight
    fields = getattr(PUBLIC[name], "_fields", None) or [field.name for field in dataclasses.fields(PUBLIC[name])]
    missing = [field for field in fields if not re.search(rf"\b{field}\b", text)]
    assert not missing
