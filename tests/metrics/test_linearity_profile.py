import math

import pytest
import torch
from torch import nn

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import linearity_profile
from captum_alignment.metrics._linearity_profile import _steepest
from tests import real
from tests.nets import TwoInputs, assert_unchanged, cnn, count_forward_passes, images, mlp, snapshot, two_inputs

NORMS = [1, 2, math.inf]


@pytest.mark.parametrize("norm", NORMS)
def test_affine_scores_fall_linearly(norm):
    net, x = nn.Linear(6, 4).double(), torch.randn(9, 6, dtype=torch.float64)
    away = x + torch.randn_like(x)
    for target in (None, 2):
        profile = linearity_profile(net, x, target, norm=norm, steps=7, adversarials=away)
        torch.testing.assert_close(profile.t, torch.linspace(0, 1, 8, dtype=torch.float64))
        torch.testing.assert_close(profile.margin, (1 - profile.t).expand(9, -1))
        torch.testing.assert_close(profile.deviation, torch.zeros(9).double())
        known = net(away).argmax(1) != profile.target
        torch.testing.assert_close(profile.adversarial_deviation[known], torch.zeros(int(known.sum())).double())
        assert profile.adversarial_margin[~known].isnan().all()


@pytest.mark.parametrize("norm", NORMS)
def test_is_the_margin_along_the_step_of_length_rho(norm):
    net, x = cnn(), images()
    r, profile = linear_analysis(net, x, norm=norm), linearity_profile(net, x, norm=norm, steps=4)
    assert torch.equal(profile.rival, r.rival)
    for i in range(8):
        g, rho = r.binarized_gradient[i], r.linearized_robustness[i]
        if norm == 2:
            step = -rho * g / g.norm()
        elif norm == math.inf:
            step = -rho * g.sign()
        else:
            step = torch.zeros_like(g)
            k = int(g.abs().argmax())
            step.view(-1)[k] = -rho * g.flatten()[k].sign()
        assert float(step.flatten().norm(norm)) == pytest.approx(float(rho))
        for k, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
            scores = net((x[i] + t * step).unsqueeze(0))[0].detach()
            expected = (scores[r.target[i]] - scores[r.rival[i]]) / r.gap[i]
            torch.testing.assert_close(profile.margin[i, k], expected)
    assert (profile.deviation > 1e-3).any()
    torch.testing.assert_close(profile.end, profile.margin[:, 4])


def test_the_adversarial_segment_and_what_has_none():
    net, x = mlp(), torch.rand(12, 6, dtype=torch.float64)
    found = adversarial_distance(net, x, bounds=(0, 1))
    points = found.adversarials.clone()
    points[0] = math.nan
    profile = linearity_profile(net, x, adversarials=points, steps=5)
    has = found.distance.isfinite()
    has[0] = False
    assert has.any()
    assert profile.adversarial_margin[~has].isnan().all()
    for i in has.nonzero().flatten().tolist():
        taken = net(points[i : i + 1]).argmax()
        for k in range(6):
            scores = net((x[i] + k / 5 * (points[i] - x[i])).unsqueeze(0))[0]
            start = net(x[i : i + 1])[0]
            t = profile.target[i]
            expected = (scores[t] - scores[taken]) / (start[t] - start[taken])
            torch.testing.assert_close(profile.adversarial_margin[i, k], expected.detach())
    assert (profile.adversarial_margin[has, -1] <= 1e-12).all()
    assert profile.adversarial_deviation[has].isfinite().all()
    assert linearity_profile(net, x).adversarial_margin.isnan().all()


def test_tuples_additional_arguments_and_batches():
    net, x = TwoInputs(), two_inputs()
    extra = (torch.randn(7, dtype=torch.float64), 0.5)
    ends = tuple(1 - t for t in x)
    whole = linearity_profile(net, x, 1, extra, adversarials=ends)
    split = linearity_profile(net, x, 1, extra, adversarials=ends, internal_batch_size=3)
    torch.testing.assert_close(split.margin, whole.margin)
    torch.testing.assert_close(split.adversarial_margin, whole.adversarial_margin, equal_nan=True)
    assert not whole.adversarial_margin.isnan().all()
    for norm in NORMS:
        start = linearity_profile(net, x, 1, extra, norm=norm).margin[:, 0]
        torch.testing.assert_close(start, torch.ones(7).double())


def test_ties_and_zero_gradients_have_no_profile():
    w = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert linearity_profile(lambda x: x @ w.T, torch.rand(3, 2)).margin.isnan().all()
    with pytest.warns(UserWarning, match="gradient is zero for 3 of 3"):
        constant = linearity_profile(lambda x: torch.stack([x.sum(1) + 1, x.sum(1)], 1), torch.rand(3, 2))
    assert constant.margin[:, 1:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_halves_give_at_least_float32(dtype):
    profile = linearity_profile(mlp(dtype=dtype), torch.rand(3, 6).to(dtype), steps=2)
    assert profile.margin.dtype == profile.deviation.dtype == torch.float32
    assert profile.margin.isfinite().all()


@pytest.mark.parametrize(
    ("name", "reference"), [("mnist_mlp", -0.08), ("mnist_cnn", 0.07), ("mnist_madry", 0.70), ("cifar_resnet20", 0.21)]
)
def test_reference_medians_of_real_networks(zoo, shared, name, reference):
    profile = linearity_profile(zoo.load(name), real.images(shared, name, 60).float(), steps=4)
    assert float(profile.end.median()) == pytest.approx(reference, abs=0.08)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_mutates_nothing(mode):
    net = cnn()
    before = snapshot(net)
    with mode():
        x = images()
        profile = linearity_profile(net, x, adversarials=1 - x)
    assert_unchanged(net, before)
    assert not profile.margin.requires_grad


def test_text_and_dataframe():
    x = images()
    profile = linearity_profile(cnn(), x, adversarials=1 - x)
    assert f"{profile.end.median():.4g}" in str(profile)
    assert "m(1)" in str(profile)
    assert profile.to_dataframe()["deviation"].tolist() == profile.deviation.tolist()


def test_bad_input_is_named():
    net, x = mlp(), torch.rand(2, 6, dtype=torch.float64)
    for steps in (0, 2.0, True):
        with pytest.raises(ValueError, match="steps: got"):
            linearity_profile(net, x, steps=steps)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="adversarials: got shapes"):
        linearity_profile(net, x, adversarials=x[:, :5])
    with pytest.raises(ValueError, match="norm: got 3"):
        linearity_profile(net, x, norm=3)
    with pytest.raises(ValueError, match="training mode"):
        linearity_profile(cnn().train(), images())


@pytest.mark.parametrize("norm", NORMS)
def test_an_analysis_saves_the_search(norm):
    net, x = cnn(), images()
    found = linear_analysis(net, x, norm=norm)
    calls = []
    handle = count_forward_passes(net, calls)
    profile = linearity_profile(net, x, norm=norm, steps=3, analysis=found, internal_batch_size=3)
    handle.remove()
    assert len(calls) == 4 * math.ceil(len(x) / 3)  # one forward pass per step, and nothing else
    expected = linearity_profile(net, x, norm=norm, steps=3)
    torch.testing.assert_close(profile.margin, expected.margin)
    assert torch.equal(profile.rival, expected.rival)


def test_an_analysis_must_be_of_these_inputs():
    net, x = cnn(), images()
    found = linear_analysis(net, x[:3])
    with pytest.raises(ValueError, match="analysis: got shapes"):
        linearity_profile(net, x, analysis=found)
    with pytest.raises(ValueError, match="target: got one beside analysis"):
        linearity_profile(net, x[:3], 1, analysis=found)


@pytest.mark.parametrize(("norm", "dual"), [(1, math.inf), (2, 2), (math.inf, 1)])
def test_the_steepest_direction_meets_hoelders_inequality(norm, dual):
    gradient = (torch.randn(5, 3, 2, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64))
    direction = _steepest(gradient, norm)
    flat, along = (torch.cat([part.flatten(1) for part in parts], 1) for parts in (gradient, direction))
    torch.testing.assert_close((flat * along).sum(1), flat.norm(dual, dim=1))
    torch.testing.assert_close(along.norm(norm, dim=1), torch.ones(5, dtype=torch.float64))
