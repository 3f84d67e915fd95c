import math

import foolbox as fb
import pytest

from captum_alignment.robust import DeepFool, GradientAttack
from captum_alignment.study.evaluation import ATTACKS
from captum_alignment.study.evaluation._attacks import NAMED, describe_attacks, make_attacks


def test_names_become_attacks_and_the_rest_stays():
    assert tuple(NAMED) == ATTACKS
    assert list(make_attacks(ATTACKS)) == list(ATTACKS)
    assert make_attacks(("paper",)) == make_attacks("paper") == "paper"
    assert isinstance(make_attacks("gradient")["gradient"], GradientAttack)
    attack = DeepFool()
    assert make_attacks(attack) is attack
    assert make_attacks(mapping := {"a": attack}) is mapping
    assert make_attacks(["deepfool"], math.inf)["deepfool"].norm == math.inf


def test_names_that_are_not_known_or_not_of_the_norm_are_refused():
    with pytest.raises(ValueError, match="got 'magic', expected some of gradient"):
        make_attacks(("gradient", "magic"))
    with pytest.raises(ValueError, match="got 'paper', expected"):
        make_attacks(("gradient", "paper"))
    with pytest.raises(ValueError, match="carlini-wagner minimises the l_2 norm, got norm inf"):
        make_attacks(("carlini-wagner",), math.inf)


def test_the_description_tells_attacks_apart():
    assert describe_attacks("fast") == ["fast"]
    (one,), (other,) = (describe_attacks(fb.attacks.DDNAttack(steps=steps)) for steps in (10, 20))
    assert one.startswith("DDNAttack(")
    assert "steps=10" in one
    assert one != other
    assert describe_attacks({"mine": lambda model, x, y: x})[0].startswith("mine: ")
