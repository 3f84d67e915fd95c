import itertools
import math

import pytest
import torch

from captum_alignment.metrics import alignment, exchangeability_test


def problem(n, own, seed, classes=3):
    """Images and maps that both show their class; maps show a little, ``own``, of their image besides."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    templates = torch.rand(classes, 20, generator=generator)
    images = templates[labels] + torch.rand(n, 20, generator=generator)
    noise = torch.randn(n, 20, generator=generator) + torch.randn(n, 1, generator=generator)
    return images, 3 * templates[labels] + noise + own * (images - images.mean(1, keepdim=True)), labels


def test_p_is_the_share_of_all_permutations():
    """Five images in classes of 3 and 2: all 12 permutations one by one."""
    images, maps, _ = problem(5, 1.0, 0)
    labels = torch.tensor([4, 1, 4, 4, 1])
    found = exchangeability_test(images, maps, labels, permutations=60_000)
    groups = [[0, 2, 3], [1, 4]]
    sums = []
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        pairs = [pair for group, order in zip(groups, orders, strict=True) for pair in zip(group, order, strict=True)]
        sums.append(sum(float(alignment(images[i : i + 1], maps[k : k + 1])) for i, k in pairs))
    expected = sum(s >= sums[0] - 1e-6 for s in sums) / len(sums)
    assert found.p_value == pytest.approx(expected, abs=0.01)
    all_sums = torch.tensor(sums)
    assert float(found.excess.sum()) == pytest.approx(float(all_sums[0] - all_sums.mean()), abs=1e-4)
    assert float(found.variance.sum()) == pytest.approx(float(all_sums.var(correction=0)), rel=1e-4)


def decided(own: float, trials: int, n: int = 40) -> tuple[float, float]:
    """How often p <= .05, of the permutations and of z under a normal distribution."""
    results = [exchangeability_test(*problem(n, own, seed), permutations=199) for seed in range(trials)]
    p = torch.tensor([r.p_value for r in results])
    z = torch.tensor([r.z for r in results])
    return float((p <= 0.05).double().mean()), float((z > 1.6449).double().mean())


@pytest.mark.parametrize("trials", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_templates_of_a_class_are_found_no_more_often_than_its_level(trials):
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert all(share <= limit + 0.005 for share in decided(0.0, trials))


def test_maps_of_their_image_are_found():
    assert min(decided(1.0, 60)) > 0.9


def test_maps_that_are_equal_are_exchangeable():
    images, _, labels = problem(30, 0.0, 0)
    found = exchangeability_test(images, torch.eye(3)[labels].repeat(1, 7)[:, :20], labels)
    assert found.p_value == 1
    torch.testing.assert_close(found.excess, torch.zeros(30), atol=1e-5, rtol=0)


def test_what_has_no_class_mate_or_no_map_takes_no_part():
    images, maps, labels = problem(30, 1.0, 0)
    whole = exchangeability_test(images, maps, labels)
    images, maps = torch.cat([images, images[:2]]), torch.cat([maps, maps[:1], maps[:1] * torch.nan])
    labels = torch.cat([labels, torch.tensor([7, 0])])
    found = exchangeability_test(images, maps, labels)
    assert found.excess[30:].isnan().all()
    torch.testing.assert_close(found.excess[:30], whole.excess)
    assert found.p_value == whole.p_value
    assert str(found).startswith("maps are exchangeable within a class: p = 0.001 (30 of 32 samples)")


def test_bad_labels_are_named():
    images, maps, labels = problem(6, 1.0, 0)
    with pytest.raises(ValueError, match="labels: got no class with two samples"):
        exchangeability_test(images, maps, torch.arange(6))
    with pytest.raises(ValueError, match=r"labels: got shape \(5,\), expected \(6,\)"):
        exchangeability_test(images, maps, labels[:5])
    with pytest.raises(TypeError, match=r"labels: got torch.float32"):
        exchangeability_test(images, maps, labels.float())
    with pytest.raises(TypeError, match="labels: got list"):
        exchangeability_test(images, maps, labels.tolist())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="permutations: got -1"):
        exchangeability_test(images, maps, labels, permutations=-1)
    assert math.isnan(exchangeability_test(images, maps, labels, permutations=0).p_value)
