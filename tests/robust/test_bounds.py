import math

import pytest
import torch
from foolbox import PyTorchModel
from torch import nn

from captum_alignment.robust._bounds import check_inside, resolve_bounds


def test_a_foolbox_model_brings_its_own():
    model = PyTorchModel(nn.Linear(2, 2).eval(), bounds=(-1, 2), device="cpu")
    assert resolve_bounds(model, (0, 1)) == resolve_bounds(model, (-1, 2)) == (-1.0, 2.0)
    with pytest.raises(ValueError, match="but the Foolbox model has bounds"):
        resolve_bounds(model, (0, 2))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [((1, 0), "min < max"), ((0, 0), "min < max"), ((0, math.nan), "min < max"), (3, r"\(min, max\)"), ("ab", "min")],
)
def test_what_is_no_range_is_refused(bounds, message):
    with pytest.raises(ValueError, match=f"bounds: got .*{message}"):
        resolve_bounds(nn.Linear(2, 2), bounds)


def test_inputs_outside_are_refused_with_their_range():
    check_inside((torch.tensor([0.0, 1.0]),), (0, 1))
    with pytest.raises(ValueError, match=r"inputs range -0.5 to 1, bounds \(0, 1\)"):
        check_inside((torch.tensor([0.0, 1.0]), torch.tensor([-0.5])), (0, 1))
