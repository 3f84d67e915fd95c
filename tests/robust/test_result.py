import math
from typing import Any

import pytest
import torch

from captum_alignment import adversarial_distance
from captum_alignment.robust import AdversarialDistance
from tests.nets import cnn, images


def result(distance, reason=None, target=None):
    distance = torch.tensor(distance)
    n = len(distance)
    return AdversarialDistance(
        distance=distance,
        attack=torch.zeros(n, dtype=torch.long),
        names=("mine",),
        adversarials=torch.zeros(n, 1),
        by_attack={"mine": distance},
        errors={},
        target=torch.zeros(n, dtype=torch.long) if target is None else torch.tensor(target),
        reason=tuple(reason or [""] * n),
        passes={"mine": (1.0, 1.0)},
    )


def test_robust_accuracy_counts_answers_farther_than_epsilon():
    found = result([0.0, 0.1, 0.2, math.inf], target=[0, 1, 1, 1])
    torch.testing.assert_close(found.robust_accuracy([0, 0.1, 0.15, 9]), torch.tensor([0.5, 0.25, 0.25, 0]).double())
    torch.testing.assert_close(found.robust_accuracy(0.05, [0, 1, 0, 1]), torch.tensor([0.25]).double())
    torch.testing.assert_close(found.robust_accuracy(torch.tensor([0.15]), 1), torch.tensor([0.25]).double())


def test_robust_accuracy_is_one_minus_the_success_rate_of_the_attack_itself():
    net, x = cnn(), images(20)
    labels = net(x).argmax(1)
    labels[:5] = (labels[:5] + 1) % 5
    found = adversarial_distance(net, x)
    epsilons = found.distance[5:].quantile(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64))
    accuracy = found.robust_accuracy(epsilons, labels)
    direct = adversarial_distance(net, x, labels).robust_accuracy(epsilons)
    expected = torch.stack([((found.distance > e) & (labels == found.target)).double().mean() for e in epsilons])
    torch.testing.assert_close(accuracy, expected)
    torch.testing.assert_close(direct, expected, rtol=0, atol=0.06)  # another batch of the same attack


def test_bad_epsilons_and_labels_are_named():
    with pytest.raises(ValueError, match=r"epsilons: got \[-1\], expected numbers that are not negative"):
        result([1.0]).robust_accuracy([-1])
    mistakes: list[Any] = ["8/255", ["8/255"], None]
    for epsilons in mistakes:
        with pytest.raises(TypeError, match=r"epsilons: got .*, expected numbers"):
            result([1.0]).robust_accuracy(epsilons)
    with pytest.raises(ValueError, match="got shape"):
        result([1.0, 2.0]).robust_accuracy(1, torch.zeros(3, dtype=torch.long))


def test_text_tells_no_answer_from_doubt():
    found = result([1.0, math.inf, math.inf, 2.0], ["zero gradient", "nothing found", "no gradient", ""])
    assert "no adversarial for 2 of 4 samples (nothing found 1, no gradient 1), which is not robustness" in str(found)
    assert "the distance of 1 of 4 samples may be far too large (zero gradient 1)" in str(found)
    assert "may be" not in str(result([1.0]))
