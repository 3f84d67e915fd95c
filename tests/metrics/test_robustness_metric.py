import math

import pytest
import torch
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import RobustnessMetric, alignment_null, median_interval


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).double().eval()


@pytest.fixture
def batches():
    return torch.rand(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).split((12, 8))


@pytest.mark.parametrize("norm", [2, math.inf])
def test_medians_and_intervals_are_those_of_all_samples(net, batches, norm):
    metric = RobustnessMetric(attacks="fast", norm=norm)
    for batch in batches:
        metric.update(net, batch)
    analyses = [linear_analysis(net, batch, norm=norm) for batch in batches]
    nulls = [alignment_null(x, a.gradient, norm=norm).null for x, a in zip(batches, analyses, strict=True)]
    whole = linear_analysis(net, torch.cat(batches), norm=norm)
    expected = {
        "alignment": whole.alignment,
        "alignment_null": torch.cat(nulls),
        "linearized_robustness": whole.linearized_robustness,
        "distance": torch.cat([adversarial_distance(net, batch, norm=norm).distance for batch in batches]),
    }
    found = metric.compute()
    assert set(found) == {name + ending for name in expected for ending in ("", "_low", "_high")}
    for name, values in expected.items():
        triple = [float(found[name + ending]) for ending in ("", "_low", "_high")]
        assert triple == pytest.approx(median_interval(values), rel=1e-5)
        assert triple[1] <= triple[0] <= triple[2]


def test_reset_forgets_and_forward_returns_the_batch(net, batches):
    metric = RobustnessMetric()
    alone = metric(net, batches[0])["alignment"]
    metric.update(net, batches[1])
    assert metric.compute()["alignment"] != alone
    metric.reset()
    metric.update(net, batches[0])
    assert metric.compute()["alignment"] == alone


def test_targets_and_arguments_are_passed_on(batches):
    x = batches[0]
    weight = torch.rand(len(x), 6, dtype=torch.float64)

    def forward(inputs, weights):
        return (inputs * weights).cumsum(1)[:, :3]

    metric = RobustnessMetric()
    metric.update(forward, x, 1, weight)
    expected = median_interval(linear_analysis(forward, x, 1, weight).linearized_robustness)[0]
    assert metric.compute()["linearized_robustness"] == pytest.approx(expected)


def test_what_cannot_be_said_is_nan(net, batches):
    metric = RobustnessMetric()
    metric.update(net, batches[0][:1])
    found = metric.compute()
    assert found["alignment"].isfinite()
    assert found["alignment_null"].isnan()
    assert found["alignment_low"].isnan()


def test_bad_input(net):
    with pytest.raises(ValueError, match="norm"):
        RobustnessMetric(norm=3)
    with pytest.raises(TypeError, match="inputs"):
        RobustnessMetric().update(net, "images")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="training mode"):
        RobustnessMetric().update(nn.Sequential(nn.Linear(6, 6), nn.Dropout()), torch.rand(4, 6))
