"""Removal against a literal re-implementation of ROAR, and against what must hold for any attribution."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_alignment.metrics import remove_features


def literal_removal(images, maps, fraction, mean, keep=False, per="pixel", absolute=False):
    """One image after the other, its features ranked by numpy, the top ones overwritten in a loop."""
    result = images.clone()
    for image, changed, importance in zip(images, result, maps, strict=True):
        ranked = importance.abs() if absolute else importance
        ranked = ranked.sum(0).numpy() if per == "pixel" else ranked.numpy()
        order = np.argsort(-ranked.ravel())
        count = round(fraction * ranked.size)
        chosen = order[count:] if keep else order[:count]
        for flat in chosen:
            index = np.unravel_index(flat, ranked.shape)
            where = (slice(None), *index) if per == "pixel" else index
            changed[where] = mean if per == "pixel" else mean[index[0]]
        assert image.shape == changed.shape
    return result


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("per", ["pixel", "value"])
@pytest.mark.parametrize("fraction", [0.05, 0.37, 0.8])
def test_is_the_literal_removal(keep, absolute, per, fraction):
    images, maps = torch.rand(4, 3, 5, 6, dtype=torch.float64), torch.randn(4, 3, 5, 6, dtype=torch.float64)
    mean = torch.rand(3, dtype=torch.float64)
    given_images, given_maps = images.clone(), maps.clone()
    found = remove_features(images, maps, fraction, baselines=mean, keep=keep, per=per, absolute=absolute)
    assert torch.equal(found, literal_removal(images, maps, fraction, mean, keep, per, absolute))
    assert torch.equal(images, given_images)
    assert torch.equal(maps, given_maps)


@given(st.integers(1, 5), st.floats(0.01, 0.99), st.booleans(), st.integers(0, 9))
def test_batch_split_order_and_tuples_change_nothing(n, fraction, keep, seed):
    generator = torch.Generator().manual_seed(seed)
    x, a = torch.rand(n, 12, generator=generator), torch.randn(n, 12, generator=generator)

    def remove(x, a):
        return remove_features(x, a, fraction, baselines=-1.0, keep=keep)

    whole = remove(x, a)
    assert torch.equal(torch.cat([remove(x[i : i + 1], a[i : i + 1]) for i in range(n)]), whole)
    order = torch.randperm(n, generator=generator)
    assert torch.equal(remove(x[order], a[order]), whole[order])
    assert torch.equal(remove((x,), (a,))[0], whole)
    split = remove((x[:, :5], x[:, 5:].reshape(n, 1, 7)), (a[:, :5], a[:, 5:].reshape(n, 1, 7)))
    assert torch.equal(torch.cat([part.reshape(n, -1) for part in split], 1), whole)
    # ... as are scale, and a monotone change of what is only ranked.
    assert torch.equal(remove(x, a.double().exp().mul(7)), whole)


@given(st.integers(1, 60), st.floats(0.001, 0.999), st.booleans(), st.sampled_from(["distinct", "constant", "steps"]))
def test_the_count_is_exact_and_roar_and_kar_are_complements(size, fraction, per_value, kind):
    x = torch.rand(3, 2, size, dtype=torch.float64) + 1
    a = {"distinct": torch.randn(3, 2, size), "constant": torch.ones(3, 2, size)}.get(
        kind, torch.randint(0, 3, (3, 2, size)).float()
    )
    per = "value" if per_value else "pixel"
    roar = remove_features(x, a, fraction, baselines=-5.0, per=per)
    kar = remove_features(x, a, fraction, baselines=-5.0, per=per, keep=True)
    gone = roar == -5
    count = round(fraction * (2 * size if per_value else size)) * (1 if per_value else 2)
    assert (gone.flatten(1).sum(1) == count).all()
    assert torch.equal(gone, kar != -5)
    assert torch.equal(roar + kar, x - 5)
    if not per_value:
        assert torch.equal(gone[:, 0], gone[:, 1])


@given(st.integers(1, 40), st.floats(0.01, 0.99))
def test_removing_the_top_is_keeping_the_top_of_the_reversed_map(count, fraction):
    if round(fraction * count) + round((1 - fraction) * count) != count:
        return  # both halves round to even
    x, a = torch.rand(2, count), torch.randn(2, count)
    assert torch.equal(
        remove_features(x, a, fraction, baselines=0), remove_features(x, -a, 1 - fraction, baselines=0, keep=True)
    )


def test_baseline_is_another_word_for_baselines():
    x, a = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    assert torch.equal(remove_features(x, a, 0.5, baseline=2), remove_features(x, a, 0.5, baselines=2))


def test_ties_break_at_random_by_the_generator_alone():
    x, flat = torch.ones(400, 30), torch.zeros(400, 30)
    before = torch.random.get_rng_state()
    gone = remove_features(x, flat, 0.4, baselines=0) == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(gone, remove_features(x, flat, 0.4, baselines=0) == 0)
    other = remove_features(x, flat, 0.4, baselines=0, generator=torch.Generator().manual_seed(5)) == 0
    assert not torch.equal(gone, other)
    # Every feature goes equally often, and images differ.
    share = gone.float().mean(0)
    assert (share - 0.4).abs().max() < 5 * (0.4 * 0.6 / 400) ** 0.5
    assert len(gone.unique(dim=0)) > 390
    # Where a part of the features ties, the others keep their rank.
    partly = torch.tensor([[3.0, 1, 1, 1, 1, 0]]).repeat(50, 1)
    gone = remove_features(torch.ones(50, 6), partly, 0.5, baselines=0) == 0
    assert gone[:, 0].all()
    assert not gone[:, 5].any()
    assert (gone[:, 1:5].sum(1) == 2).all()
    assert gone[:, 1:5].any(0).all()


def test_a_generator_handed_on_from_batch_to_batch_is_one_batch():
    x, flat = torch.ones(6, 40), torch.zeros(6, 40)
    one, parts = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    whole = remove_features(x, flat, 0.5, baselines=0, generator=one)
    split = [remove_features(x[i : i + 2], flat[i : i + 2], 0.5, baselines=0, generator=parts) for i in (0, 2, 4)]
    assert torch.equal(torch.cat(split), whole)


def test_one_channel_of_attributions_stands_for_all():
    x, a = torch.rand(4, 3, 6, 6), torch.randn(4, 1, 6, 6)
    found = remove_features(x, a, 0.3, baselines=0)
    assert torch.equal(found, remove_features(x, a.repeat(1, 3, 1, 1), 0.3, baselines=0))
    with pytest.raises(ValueError, match=r"attributions: got shapes \[\(4, 1, 6, 6\)\]"):
        remove_features(x, a, 0.3, baselines=0, per="value")


def test_baselines():
    x, a = torch.rand(3, 3, 3, 3), torch.randn(3, 3, 3, 3)  # every axis could be taken for another
    mean = torch.tensor([7.0, 8.0, 9.0])
    gone = remove_features(x, a, 0.5, baselines=0) == 0
    expected = torch.where(gone, mean.reshape(1, 3, 1, 1), x)
    for baseline in (mean, mean.tolist(), mean.reshape(3, 1, 1), mean.reshape(1, 3, 1, 1).expand(3, 3, 3, 3), (mean,)):
        assert torch.equal(remove_features(x, a, 0.5, baselines=baseline), expected)
    pair = remove_features((x, x[:, 0, 0]), (a, a[:, 0, 0]), 0.5, baselines=(mean, 5.0))
    assert set(pair[1].unique().tolist()) - set(x.unique().tolist()) == {5.0}
    half = remove_features(x.half(), a, 0.5, baselines=mean)
    assert half.dtype == torch.float16
    assert torch.equal(half, expected.half())


def test_bad_input_is_named():
    x = torch.rand(2, 3, 4, 4)
    for fraction in (0, 1, -0.1, 1.5, float("nan"), True, "half"):
        with pytest.raises(ValueError, match="fraction: got"):
            remove_features(x, x, fraction, baselines=0)  # pyright: ignore[reportArgumentType]
    for wrong in (x[:, :2], x[:1], x[..., :3], (x, x), x[:, :1, :2]):
        with pytest.raises(ValueError, match="attributions: got shapes"):
            remove_features(x, wrong, 0.5, baselines=0)
    with pytest.raises(ValueError, match="attributions: got shapes"):
        remove_features((x, x), x, 0.5, baselines=0)
    with pytest.raises(ValueError, match=r"attributions: NaN .* in 1 of 2 samples \(the first at index 1\)"):
        remove_features(x, x.index_fill(0, torch.tensor([1]), float("nan")), 0.5, baselines=0)
    with pytest.raises(ValueError, match=r"baselines: got shape \(4,\)"):
        remove_features(x, x, 0.5, baselines=torch.zeros(4))
    with pytest.raises(ValueError, match="baselines: got a tuple of 3"):
        remove_features(x, x, 0.5, baselines=(0, 0, 0))
    with pytest.raises(ValueError, match="baselines: got NaN"):
        remove_features(x, x, 0.5, baselines=float("nan"))
    with pytest.raises(ValueError, match="per: got 'channel'"):
        remove_features(x, x, 0.5, baselines=0, per="channel")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="attributions: got ndarray"):
        remove_features(x, x.numpy(), 0.5, baselines=0)  # pyright: ignore[reportArgumentType]


def test_integers_are_removed_and_never_rounded():
    x, a = torch.tensor([[7, 8, 9, 250]], dtype=torch.uint8), torch.tensor([[0.1, 0.9, 0.5, -1]])
    for tokens in (x, x.long()):
        found = remove_features(tokens, a, 0.5, baselines=3)
        assert found.dtype == tokens.dtype
        assert found.tolist() == [[7, 3, 3, 250]]
    for wrong in (0.5, 300, -1, float("nan")):
        with pytest.raises(ValueError, match=r"baselines: got values that inputs of torch\.uint8 cannot hold"):
            remove_features(x, a, 0.5, baselines=wrong)


def test_a_feature_mask_removes_groups_together():
    x, a = torch.rand(4, 2, 6, dtype=torch.float64) + 1, torch.randn(4, 2, 6, dtype=torch.float64)
    for mask in (torch.randint(0, 5, (1, 2, 6)) * 7, torch.randint(0, 5, (4, 2, 6)), torch.arange(6) // 2):
        ids = mask.expand(4, 2, 6).flatten(1)
        for keep, absolute, fraction in ((False, False, 0.4), (True, True, 0.6)):
            found = remove_features(x, a, fraction, baselines=0, feature_mask=mask, keep=keep, absolute=absolute)
            for i in range(4):
                weights = a[i].abs().flatten() if absolute else a[i].flatten()
                sums = {g: float(weights[ids[i] == g].sum()) for g in ids[i].unique().tolist()}
                top = sorted(sums, key=lambda g: -sums[g])[: round(fraction * len(sums))]
                gone = torch.tensor([(g in top) != keep for g in ids[i].tolist()]).reshape(2, 6)
                assert torch.equal(found[i], torch.where(gone, 0, x[i]))
            split = (x[:, 0], x[:, 1]), (a[:, 0], a[:, 1])
            masks = tuple(mask.expand(len(mask) if mask.ndim == 3 else 1, 2, 6)[:, c] for c in (0, 1))
            pair = remove_features(*split, fraction, baselines=0, feature_mask=masks, keep=keep, absolute=absolute)
            assert torch.equal(torch.stack(pair, 1), found)
    every = torch.arange(12).reshape(1, 2, 6)
    expected = remove_features(x, a, 0.3, baselines=0, per="value")
    assert torch.equal(remove_features(x, a, 0.3, baselines=0, feature_mask=every), expected)


def test_bad_feature_masks_are_named():
    x = torch.rand(4, 6)
    for wrong in (torch.zeros(1, 6), [0] * 6):
        with pytest.raises(TypeError, match="feature_mask: got"):
            remove_features(x, x, 0.5, baselines=0, feature_mask=wrong)  # pyright: ignore[reportArgumentType]
    for wrong in (torch.zeros(3, 6).long(), torch.zeros(5).long(), (torch.zeros(6).long(),) * 2):
        with pytest.raises(ValueError, match="feature_mask: got"):
            remove_features(x, x, 0.5, baselines=0, feature_mask=wrong)
