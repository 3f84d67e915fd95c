import math

import foolbox as fb
import pytest

from captum_alignment.robust import DeepFool, attack_names
from captum_alignment.study.evaluation._attacks import describe_attacks


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_every_name_has_its_line(norm):
    for name in attack_names(norm):
        (line,) = describe_attacks(name, norm)
        assert line == name or line.startswith(f"{name}: ")
    names = ["deepfool", "fast"] if norm != 1 else ["fmn", "fast"]
    assert describe_attacks(names, norm)[0].startswith(f"{names[0]}: ")
    assert describe_attacks(names, norm)[1] == "fast"


def test_the_description_tells_attacks_apart(tmp_path):
    assert describe_attacks("fast") == describe_attacks(["fast"]) == ["fast"]
    (one,), (other,) = (describe_attacks(fb.attacks.DDNAttack(steps=steps)) for steps in (10, 20))
    assert one.startswith("DDNAttack(")
    assert "steps=10" in one
    assert one != other
    assert describe_attacks(DeepFool(norm=2.0)) == describe_attacks(DeepFool(norm=2))
    assert describe_attacks({"mine": lambda model, x, y: x})[0].startswith("mine: ")
    file = tmp_path / "own.py"
    file.write_text("def away(model, x, y):\n    return x + 1\n")
    assert describe_attacks([f"{file}:away"]) == ["away: away()"]


def test_what_does_not_exist_in_the_norm_is_refused():
    with pytest.raises(ValueError, match="got 'magic', expected one of"):
        describe_attacks("magic")
    with pytest.raises(ValueError, match="'carlini-wagner' exists in norm 2, got norm=inf"):
        describe_attacks(["carlini-wagner"], math.inf)
