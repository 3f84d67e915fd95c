import math

import foolbox
import pytest
import torch

from captum_alignment import adversarial_distance
from captum_alignment._core._foolbox import ScoresModel
from captum_alignment.robust import FAB, RivalSearch
from captum_alignment.robust._attack import margin
from tests.nets import mlp

ATTACKS = [FAB, RivalSearch]


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_label_that_wins_a_tie_is_left_at_once(attack, norm):
    x = torch.tensor([[0.5, 0.5, 0.2], [0.25, 0.25, 0.1], [1.0, 0.5, 0.0]])
    distance = adversarial_distance(lambda z: z[:, :2], x, attacks=attack(norm=norm), norm=norm).distance
    assert (distance[:2] < 1e-3).all()
    assert distance[2] == pytest.approx(0.5 / math.sqrt(2) if norm == 2 else 0.25, rel=1e-2)


@pytest.mark.parametrize("attack", ATTACKS)
def test_coarse_scores_often_tie_and_fail_no_sample(attack):
    net, x = mlp(k=6).float(), torch.rand(60, 6)
    result = adversarial_distance(lambda z: (3 * net(z) + 10).bfloat16(), x, attacks=attack(), bounds=(-3, 4))
    exact = adversarial_distance(net, x, attacks=attack(), bounds=(-3, 4))
    assert result.distance.isfinite().all()
    assert result.distance.median() < 1.2 * exact.distance.median()


def test_margins_keep_their_digits_under_autocast():
    scores = torch.tensor([[12.03, 12.0]])
    model = ScoresModel(lambda z: z, (scores,), None, (0, 20))
    with torch.autocast("cpu", torch.bfloat16):
        _, lead, _ = margin(model, scores, torch.tensor([0]), torch.tensor([1]))
    torch.testing.assert_close(lead, torch.tensor([0.03]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_models_in_plain_foolbox_code(attack, dtype):
    net, x = mlp(k=6).to(dtype).eval(), torch.rand(20, 6).to(dtype)
    model = foolbox.PyTorchModel(net, bounds=(-3, 4), device="cpu")
    points, _, success = attack()(model, x, net(x).argmax(1), epsilons=None)
    assert points.dtype == dtype
    assert success.float().mean() > 0.9


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_default_dtype_does_not_matter(attack):
    net, x = mlp(k=6).float(), torch.rand(10, 6)
    expected = adversarial_distance(net, x, attacks=attack(), bounds=(-3, 4)).distance
    torch.set_default_dtype(torch.float64)
    try:
        found = adversarial_distance(net, x, attacks=attack(), bounds=(-3, 4)).distance
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
