import math

import pytest
import torch
from foolbox import attacks as fb

from captum_alignment import adversarial_distance
from captum_alignment.robust import attack_names, resolve_attacks
from captum_alignment.robust._registry import ATTACKS, PORTFOLIOS
from tests.nets import mlp

NORMS = [1, 2, math.inf]
CALLS = [(name, norm) for name, made in {**PORTFOLIOS, **ATTACKS}.items() for norm in made if name != "boundary"]


@pytest.mark.parametrize(("name", "norm"), CALLS)
@pytest.mark.filterwarnings("ignore:no adversarial for")
def test_every_name_finds_adversarials_in_every_norm_that_it_claims(name, norm):
    net, x = mlp(dtype=torch.float32), torch.rand(4, 6)
    if name == "thorough":  # its fallback is tested elsewhere
        name = ["thorough"]
    result = adversarial_distance(net, x, attacks=name, norm=norm, bounds=(-3, 4))
    assert not result.errors
    assert result.distance.isfinite().float().mean() >= 0.5


def test_the_slowest_is_made_too():
    assert isinstance(resolve_attacks("boundary", 2)["boundary"], fb.BoundaryAttack)


def test_names_by_norm():
    assert set(attack_names(1)) >= {"fast", "thorough", "rival-search", "fab", "fmn", "ead"}
    assert set(attack_names(2)) >= {"paper", "fast", "thorough", "gradient", "deepfool", "fab", "ddn", "carlini-wagner"}
    assert "ddn" not in attack_names(math.inf)
    assert set(attack_names()) == {*PORTFOLIOS, *ATTACKS}


def test_names_attacks_and_portfolios_mix():
    own = fb.DDNAttack(steps=3)
    found = resolve_attacks(["deepfool", own, "fast", "paper"], 2)
    assert list(found) == ["deepfool", "DDNAttack", "rival-search", "gradient", "deepfool-2", "carlini-wagner"]
    assert list(resolve_attacks({"mine": "ddn"}, 2)) == ["mine"]
    assert list(resolve_attacks("fab", 2)) == ["fab"]


FILE = """
import torch
from foolbox.attacks import DDNAttack
few = DDNAttack(steps=2)
class Many(DDNAttack):
    pass
def corner(model, x, y):
    return 1 - x.round()
number = 3
"""


def test_attacks_out_of_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    found = resolve_attacks([f"{file}:few", f"{file}:Many", f"{file}:corner", "ddn"], 2)
    assert list(found) == ["few", "Many", "corner", "ddn"]
    assert found["few"].steps == 2  # pyright: ignore
    assert isinstance(found["Many"], fb.DDNAttack)
    with pytest.raises(ValueError, match="has no 'other'"):
        resolve_attacks(f"{file}:other", 2)
    with pytest.raises(TypeError, match="'int' is 3, expected a Foolbox attack or a callable"):
        resolve_attacks(f"{file}:number", 2)
    with pytest.raises(ValueError, match="there is no Python file"):
        resolve_attacks(f"{tmp_path / 'none.py'}:few", 2)


@pytest.mark.parametrize(
    ("attacks", "norm", "message"),
    [
        ("dnn", 2, "attacks: got 'dnn', expected one of paper, fast, thorough, .*FILE.py:NAME, or your own"),
        ("ddn", math.inf, "attacks: 'ddn' exists in norm 2, got norm=inf; in that there are paper, fast"),
        (
            "paper",
            1,
            "attacks: 'paper' exists in norm 2 and inf, got norm=1; in that there are fast, .*, rival",
        ),
        ([], 2, "attacks: got none"),
    ],
)
def test_bad_names_say_what_there_is(attacks, norm, message):
    with pytest.raises(ValueError, match=message):
        resolve_attacks(attacks, norm)
