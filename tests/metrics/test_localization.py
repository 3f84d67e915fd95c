"""Localisation against a literal loop, and what has no answer."""

import math

import pytest
import torch

from captum_alignment.metrics import pointing_game, relevance_mass_accuracy

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(20, 3, 5, 4, generator=GENERATOR)
MASKS = torch.rand(20, 5, 4, generator=GENERATOR) < 0.4


def test_every_pixel_is_counted_once():
    mass, hit = relevance_mass_accuracy(MAPS, MASKS), pointing_game(MAPS, MASKS)
    for map_, mask, share, inside in zip(MAPS, MASKS, mass.tolist(), hit.tolist(), strict=True):
        sizes = {(i, j): sum(abs(float(c[i, j])) for c in map_) for i in range(5) for j in range(4)}
        within = math.fsum(size for (i, j), size in sizes.items() if mask[i, j])
        assert share == pytest.approx(within / math.fsum(sizes.values()), rel=1e-6)
        assert inside == float(mask[max(sizes, key=sizes.__getitem__)])


def test_a_flat_map_scores_the_share_of_the_mask_and_ties_count_by_theirs():
    flat, share = torch.ones_like(MAPS), MASKS.double().mean((1, 2))
    torch.testing.assert_close(relevance_mass_accuracy(flat, MASKS), share)
    torch.testing.assert_close(pointing_game(flat, MASKS), share)


def test_inside_and_outside_add_up_and_scale_and_sign_do_not_count():
    found = relevance_mass_accuracy(-3 * MAPS, MASKS[:, None])
    torch.testing.assert_close(found + relevance_mass_accuracy(MAPS, ~MASKS), torch.ones_like(found))
    torch.testing.assert_close(pointing_game(-3 * MAPS, MASKS) + pointing_game(MAPS, ~MASKS), torch.ones_like(found))


@pytest.mark.parametrize("metric", [pointing_game, relevance_mass_accuracy])
def test_what_has_no_answer_is_nan_and_the_rest_stays(metric):
    maps, masks = MAPS.clone(), MASKS.clone()
    maps[1], maps[2, 0, 0, 0], masks[3] = 0, torch.inf, False
    found, expected = metric(maps, masks), metric(MAPS, MASKS)
    assert found.isnan().nonzero().flatten().tolist() == [1, 2, 3]
    torch.testing.assert_close(found[4:], expected[4:])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((MAPS, MASKS[:, 1:]), ValueError, r"masks: got shape \(20, 4, 4\), expected \(20, 5, 4\)"),
        ((MAPS, MASKS.float()), TypeError, "masks: got torch.float32, expected a tensor of booleans"),
        ((MAPS, MASKS.numpy()), TypeError, "masks: got ndarray"),
        ((MAPS[0], MASKS), ValueError, "attributions: got shapes"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        pointing_game(*arguments)
