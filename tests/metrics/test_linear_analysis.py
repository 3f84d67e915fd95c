import math

import pytest
import torch
from torch import nn

from captum_alignment import linear_analysis
from tests import literal
from tests.nets import TwoInputs, assert_unchanged, cnn, count_forward_passes, images, mlp, snapshot, two_inputs

NORMS = [1, 2, math.inf]


def assert_is_literal(result, expected):
    for name in expected[0]:
        column = torch.tensor([row[name] for row in expected], dtype=torch.float64)
        torch.testing.assert_close(getattr(result, name).double(), column, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("norm", NORMS)
def test_every_quantity_is_the_literal_one(norm):
    for net, x in [(mlp(), torch.randn(9, 6, dtype=torch.float64)), (cnn(), images())]:
        assert_is_literal(linear_analysis(net, x, norm=norm), literal.analyse(net, (x,), norm=norm))


@pytest.mark.parametrize("norm", NORMS)
def test_given_targets_tuples_and_additional_arguments(norm):
    net, x = TwoInputs(), two_inputs()
    target = torch.arange(7) % 3
    extra = (torch.randn(7, dtype=torch.float64), 0.5)
    expected = literal.analyse(net, x, target, norm, extra)
    assert min(row["linearized_robustness"] for row in expected) < 0  # a rival above the target
    for size in (None, 1, 3):
        result = linear_analysis(net, x, target, extra, norm=norm, internal_batch_size=size)
        assert_is_literal(result, expected)
        assert [m.shape for m in result.gradient] == [t.shape for t in x]


@pytest.mark.parametrize("norm", NORMS)
def test_identities_and_bounds(norm):
    x = images(16)
    r = linear_analysis(cnn(), x, norm=norm)
    g = r.binarized_gradient.flatten(1)
    signed = (x.flatten(1) * g).sum(1) / g.norm({1: math.inf, 2: 2, math.inf: 1}[norm], dim=1)
    torch.testing.assert_close(r.linearized_robustness, signed + r.bias)
    torch.testing.assert_close(r.linearized_robustness, r.alignment + r.direction_gap + r.bias_gap)
    assert ((r.linearized_robustness - r.binarized_alignment).abs() <= r.bias.abs() + 1e-12).all()
    assert ((r.alignment - r.binarized_alignment).abs() <= r.noncollinearity + 1e-12).all()
    assert (r.linearized_robustness <= r.bound + 1e-12).all()


def test_affine_scores_distance_to_every_boundary():
    net = nn.Linear(3, 4, dtype=torch.float64)
    x = torch.randn(20, 3, dtype=torch.float64)
    r = linear_analysis(net, x)
    # The projection onto the found boundary lies on it, and on no nearer side of any other: rho = rho~.
    w = r.binarized_gradient
    foot = x - w * (r.linearized_robustness / w.norm(dim=1)).unsqueeze(1)
    scores = net(foot)
    at_target = scores.gather(1, r.target.unsqueeze(1))
    torch.testing.assert_close(at_target, scores.max(1, keepdim=True).values)
    torch.testing.assert_close(at_target, scores.gather(1, r.rival.unsqueeze(1)))


def test_one_homogeneous_scores():
    net, x = mlp(bias=False), torch.randn(20, 6, dtype=torch.float64)
    r = linear_analysis(net, x)
    torch.testing.assert_close(r.linearized_robustness, r.binarized_alignment)
    torch.testing.assert_close((x * r.gradient).sum(1), net(x).gather(1, r.target.unsqueeze(1)).squeeze(1))
    torch.testing.assert_close(r.bias, torch.zeros_like(r.bias), atol=1e-12, rtol=0)


@pytest.mark.parametrize("outputs", [1, None])
def test_one_signed_linear_score_makes_all_three_equal(outputs):
    line = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    x = torch.randn(9, 5, dtype=torch.float64)
    r = linear_analysis(line if outputs else lambda x: line(x).squeeze(1), x)
    torch.testing.assert_close(r.alignment, r.linearized_robustness)
    torch.testing.assert_close(r.binarized_alignment, r.linearized_robustness)
    assert r.target.tolist() == (line(x).flatten() > 0).long().tolist()


def test_batch_split_and_permutation():
    net, x = cnn(), images(9)
    whole = linear_analysis(net, x).scalars()
    order = torch.randperm(9)
    shuffled, split = linear_analysis(net, x[order]).scalars(), linear_analysis(net, x, internal_batch_size=2).scalars()
    for name, column in whole.items():
        torch.testing.assert_close(shuffled[name], column[order], msg=name)
        torch.testing.assert_close(split[name], column, msg=name)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1), (torch.float32, 1e-4), (torch.float64, 0)]
)
def test_dtypes(dtype, tolerance):
    x = torch.rand(6, 6, dtype=torch.float64).to(dtype)
    net = mlp(dtype=dtype)
    r = linear_analysis(net, x)
    exact = linear_analysis(net.double(), x.double(), r.target)
    expected_dtype = torch.promote_types(dtype, torch.float32)
    assert r.linearized_robustness.dtype == r.alignment.dtype == expected_dtype
    assert r.gradient.dtype == dtype
    for name in ("linearized_robustness", "alignment", "gap"):
        got, wanted = getattr(r, name).double(), getattr(exact, name).double()
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, msg=name)


def test_one_forward_and_k_backward_passes():
    net, calls = mlp(k=7), []
    count_forward_passes(net, calls)
    net[1].register_full_backward_hook(lambda *_: calls.append("backward"))
    r = linear_analysis(net, torch.rand(3, 6, dtype=torch.float64))
    assert calls == ["forward"] + 7 * ["backward"]
    assert (r.model_passes == 8).all()


def test_candidates_restrict_to_the_smallest_gaps():
    net, x = mlp(k=8), torch.randn(30, 6, dtype=torch.float64)
    full, one = linear_analysis(net, x), linear_analysis(net, x, candidates=1)
    scores = net(x)
    assert torch.equal(one.rival, scores.topk(2, 1).indices[:, 1])
    assert (one.linearized_robustness >= full.linearized_robustness).all()
    assert (one.linearized_robustness > full.linearized_robustness).any()
    torch.testing.assert_close(
        linear_analysis(net, x, candidates=99).linearized_robustness, full.linearized_robustness, rtol=0, atol=0
    )


def test_ties_zero_gradients_and_masked_classes():
    w = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])

    def tie(x):
        return x @ w[:2].T

    r = linear_analysis(tie, torch.rand(3, 2))
    assert (r.linearized_robustness == 0).all()
    assert (r.alignment > 0).all()

    def constant_margin(x):
        return torch.stack([x.sum(1) + 1, x.sum(1)], 1)

    with pytest.warns(UserWarning, match=r"gradient is zero for 3 of 3 samples \(the first at index 0\)"):
        r = linear_analysis(constant_margin, torch.rand(3, 2))
    assert r.linearized_robustness.isposinf().all()
    with pytest.warns(UserWarning, match="no sign of robustness"):
        r = linear_analysis(constant_margin, torch.rand(3, 2), 1)
    assert r.linearized_robustness.isneginf().all()

    def masked(x):
        return (x @ w[2:].T).index_fill(1, torch.tensor(0), -math.inf)

    r = linear_analysis(masked, torch.rand(3, 2))
    assert r.linearized_robustness.isposinf().all()


def test_a_nan_gradient_is_not_hidden():
    def undefined_at_zero(x):
        return torch.stack([x.sum(1) + 3, (x[:, 0] * x[:, 0]).sqrt(), x[:, 1]], 1)

    with pytest.warns(UserWarning, match="gradient is not finite for 1 of 2 samples"):
        r = linear_analysis(undefined_at_zero, torch.tensor([[0.0, 0.5], [0.2, 0.5]]))
    assert r.linearized_robustness[0].isnan()
    assert r.linearized_robustness[1].isfinite()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_runs_in_any_grad_mode_and_leaves_everything_as_it_came(mode):
    net = cnn()
    first, *_, last = net.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    before = snapshot(net)
    with mode():
        x = images()
        copy = x.clone()
        r = linear_analysis(net, x)
    assert_unchanged(net, before)
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert x.grad is None
    assert not any(t.requires_grad for t in (*r.scalars().values(), r.gradient, r.binarized_gradient))
    torch.testing.assert_close(r.linearized_robustness, linear_analysis(net, copy.clone()).linearized_robustness)


def test_bad_input_is_named():
    net, x = mlp(), torch.rand(2, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="inputs: got an empty batch"):
        linear_analysis(net, x[:0])
    with pytest.raises(ValueError, match=r"inputs: NaN or infinite entries in 1 of 2 samples \(the first at index 1\)"):
        linear_analysis(net, torch.cat([x[:1], x[1:] * math.nan]))
    with pytest.raises(TypeError, match=r"inputs: got dtype torch\.int64"):
        linear_analysis(net, torch.zeros(2, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="target: got class 4, expected 0 to 3"):
        linear_analysis(net, x, 4)
    with pytest.raises(ValueError, match="target: got shape"):
        linear_analysis(net, torch.rand(4, 6, dtype=torch.float64), torch.zeros(2).long(), internal_batch_size=2)
    with pytest.raises(ValueError, match="candidates: got 0"):
        linear_analysis(net, x, candidates=0)
    with pytest.raises(ValueError, match="returned shape"):
        linear_analysis(lambda x: net(x).unsqueeze(1), x)
    with pytest.raises(ValueError, match="do not depend on the inputs"):
        linear_analysis(lambda x: net(x).detach(), x)
    with pytest.raises(ValueError, match="do not depend on the inputs"):
        linear_analysis(lambda x: net(torch.ones_like(x)), x)
    with pytest.raises(ValueError, match="training mode"):
        linear_analysis(cnn().train(), images())


def test_a_batch_of_one():
    net, x = cnn(), images(3)
    one = linear_analysis(net, x[1:2])
    torch.testing.assert_close(one.linearized_robustness, linear_analysis(net, x).linearized_robustness[1:2])


def test_dataframe_and_text():
    net, x = cnn(), images()
    r = linear_analysis(net, x)
    frame = r.to_dataframe()
    assert len(frame) == 8
    assert "gradient" not in frame
    assert frame["linearized_robustness"].tolist() == r.linearized_robustness.tolist()
    assert f"{r.alignment.sort().values[3:5].mean():.4g}" in str(r)


def test_text_names_the_larger_gap():
    one = mlp(k=2, bias=False)
    r = linear_analysis(one, torch.randn(9, 6, dtype=torch.float64))
    assert "the direction gap is the larger one on 9 of 9 samples" in str(r)
    line = nn.Linear(5, 1, dtype=torch.float64)
    r = linear_analysis(line, torch.randn(7, 5, dtype=torch.float64))
    assert "the bias gap is the larger one on 7 of 7 samples" in str(r)


def test_real_networks_in_float64(zoo, mnist):
    x = mnist[0][:40].double()
    for name in ("mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry"):
        net = zoo.load(name).double()
        r = linear_analysis(net, x)
        assert_is_literal(linear_analysis(net, x[:2]), literal.analyse(net, (x[:2],)))
        assert (r.linearized_robustness <= r.bound).all()
        assert ((r.linearized_robustness - r.binarized_alignment).abs() <= r.bias.abs() + 1e-12).all()
