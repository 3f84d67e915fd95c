"""TRADES, gradients aligned with classes or with edges, linear regions: against literal loops in float64."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment import linear_analysis
from captum_alignment.training import (
    TRADES,
    EdgeAlignment,
    KinkedUnits,
    LinearRegions,
    LocalLipschitz,
    PerceptualAlignment,
    adversarial_examples,
    class_gradients_penalty,
    edge_penalty,
    linear_region_penalty,
    trades_penalty,
)
from tests.training.literal import DUAL, each_sample

N, K = 5, 3


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(N, 2, 4, 4, dtype=torch.float64, generator=generator), torch.arange(N) % K


def relu_net(seed=0, final=K):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(12, 7),
        nn.LeakyReLU(0.1),
        nn.Linear(7, final),
    ).double()


def tanh_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, K)).double()


def parameter_gradients(term, model):
    return torch.autograd.grad(term, list(model.parameters()), materialize_grads=True, retain_graph=True)


def agree(term, penalty, expected, model, weight):
    """Regularizer, pure penalty and literal loop: values and parameter gradients."""
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(term, weight * expected.mean())
    wanted = parameter_gradients(weight * expected.mean(), model)
    for found in (parameter_gradients(term, model), parameter_gradients(weight * penalty.mean(), model)):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert max(g.abs().max() for g in wanted) > 1e-6


# TRADES


def literal_trades(model, x, found):
    rows = []
    for a, b in zip(x, found, strict=True):
        p, q = model(a[None])[0].softmax(0), model(b[None])[0].softmax(0)
        rows.append((p * (p.log() - q.log())).sum())
    return torch.stack(rows)


def literal_ascent(model, x, epsilon, steps, norm, noise):
    """Zhang et al.'s inner loop, one sample at a time; Foolbox's step is 2.5 ε / steps."""
    step, found = 2.5 * epsilon / steps, []
    for a, start in zip(x, noise, strict=True):
        clean, near = model(a[None])[0].softmax(0).detach(), a + 0.001 * start
        for i in range(steps + 1):
            change = near - a
            change = change.clamp(-epsilon, epsilon) if norm == math.inf else change * min(1, epsilon / change.norm())
            near = (a + change).clamp(0, 1)
            if i < steps:
                near = near.detach().requires_grad_()
                q = model(near[None])[0].softmax(0)
                (g,) = torch.autograd.grad((clean * (clean.log() - q.log())).sum(), near)
                near = near.detach() + step * (g.sign() if norm == math.inf else g / g.norm())
        found.append(near.detach())
    return torch.stack(found)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_trades_equals_the_literal_loop(norm):
    model, (x, y) = tanh_net(), batch()
    term = TRADES(6.0, epsilon=0.3, norm=norm, steps=4)(model, x, y)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    found = literal_ascent(model, x, 0.3, 4, norm, noise)
    agree(term, trades_penalty(model(x), model(found)), literal_trades(model, x, found), model, 6.0)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_trades_of_a_masked_class_is_that_of_the_others(norm):
    model, x = nn.Linear(4, 3, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)

    def masked(x):
        return F.pad(model(x), (1, 0), value=-math.inf)

    terms = [TRADES(1.0, epsilon=0.1, norm=norm, steps=3)(net, x, None) for net in (masked, model)]
    gradients = [torch.cat([g.flatten() for g in torch.autograd.grad(t, list(model.parameters()))]) for t in terms]
    assert terms[1] > 0
    torch.testing.assert_close(terms[0], terms[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_trades_finds_more_than_a_random_point_and_leaves_the_model_alone():
    model, (x, y) = nn.Sequential(tanh_net(), nn.Dropout(0.5)).train(), batch()
    model[0].add_module("norm", nn.BatchNorm1d(K).double())
    state = {k: v.clone() for k, v in model.state_dict().items()}
    regularizer = TRADES(1.0, epsilon=0.5, norm=2)
    torch.manual_seed(0)
    assert regularizer(model, x, y) > 0
    assert model.training
    assert model[1].training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert TRADES(1.0, epsilon=0.0)(model.eval(), x, y).abs() < 1e-12
    first, second = TRADES(1.0, epsilon=0.5, norm=2), TRADES(1.0, epsilon=0.5, norm=2)
    torch.testing.assert_close(first(model, x, y), second(model, x, y))
    found = adversarial_examples(model, x, y, attack="pgd-l2", epsilon=0.5, steps=10)
    assert first(model, x, y) > 0.5 * trades_penalty(model(x), model(found)).mean()


# Gradients of all classes, and edges


def test_class_gradients_equal_the_literal_loop():
    model, (x, _) = tanh_net(), batch()
    means = torch.rand(K, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rows = []
    for z, gradient, flat, _ in each_sample(model, x, torch.zeros(N, dtype=torch.long)):
        cosines = [F.cosine_similarity(gradient(z[c]), means[c].flatten() - flat, dim=0) for c in range(K)]
        rows.append(1 - torch.stack(cosines).mean())
    leaf = x.clone().requires_grad_()
    directions = means[None] - x[:, None]
    penalty = class_gradients_penalty(model(leaf), leaf, directions)
    agree(PerceptualAlignment(0.7, means)(model, x, 0), penalty, torch.stack(rows), model, 0.7)
    near = PerceptualAlignment(0.7, means, method="finite-difference", step=1e-6)(model, x, 0)
    wanted = parameter_gradients(0.7 * torch.stack(rows).mean(), model)
    torch.testing.assert_close(parameter_gradients(near, model), wanted, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="representatives: got one of shape"):
        PerceptualAlignment(0.7, means[:, :1])(model, x, 0)
    with pytest.raises(ValueError, match="directions: got shapes"):
        class_gradients_penalty(model(leaf), leaf, directions[:, :2])


def literal_edges(image):
    """Sobel by loops over pixels, the margin repeated."""
    c, h, w = image.shape
    found = torch.zeros_like(image)
    for k in range(c):
        for i in range(h):
            for j in range(w):
                p = [
                    [image[k, min(max(i + a, 0), h - 1), min(max(j + b, 0), w - 1)] for b in (-1, 0, 1)]
                    for a in (-1, 0, 1)
                ]
                across = p[0][2] + 2 * p[1][2] + p[2][2] - p[0][0] - 2 * p[1][0] - p[2][0]
                down = p[2][0] + 2 * p[2][1] + p[2][2] - p[0][0] - 2 * p[0][1] - p[0][2]
                found[k, i, j] = (across**2 + down**2) ** 0.5
    return found


def test_edge_directed_gradients_equal_the_literal_loop():
    model, (x, y) = tanh_net(), batch()
    rows = []
    for image, (z, gradient, _, t) in zip(x, each_sample(model, x, y), strict=True):
        g = gradient(-z.log_softmax(0)[t])
        rows.append(1 - F.cosine_similarity(g.abs(), literal_edges(image).flatten(), dim=0))
    leaf = x.clone().requires_grad_()
    agree(EdgeAlignment(2.0)(model, x, y), edge_penalty(model(leaf), leaf, y), torch.stack(rows), model, 2.0)
    with pytest.raises(ValueError, match="expected one batch of images"):
        EdgeAlignment(1.0)(model, x.flatten(1), y)


def test_the_l_1_penalty_of_natural_input_gradients():
    model, (x, y) = tanh_net(), batch()
    rows = [gradient(-z.log_softmax(0)[t]).abs().sum() for z, gradient, _, t in each_sample(model, x, y)]
    term = LocalLipschitz(0.5, norm=math.inf, squared=False)(model, x, y)
    torch.testing.assert_close(term, 0.5 * torch.stack(rows).mean())


# Maximal linear regions


def preactivations(model, x):
    first = model[0](x)
    second = model[3](first.relu().flatten(1))
    return first.flatten(1), second


def literal_regions(model, x, y, *, region, margin, nearest, norm):
    rows = []
    for sample, t in zip(x, y.tolist(), strict=True):
        leaf = sample.clone().requires_grad_()
        z = torch.cat(preactivations(model, leaf[None]), 1)[0]
        distances = []
        for unit in z:
            g = torch.autograd.grad(unit, leaf, create_graph=True, allow_unused=True)[0]
            size = g.flatten().norm(DUAL[norm])
            distances.append(unit.abs() / size if size > 0 else torch.tensor(math.inf, dtype=torch.float64))
        kinks = sorted(distances, key=torch.Tensor.item)[:nearest]
        scores, boundaries = model(leaf[None])[0], []
        for s in range(len(scores)):
            if s != t:
                g = torch.autograd.grad(scores[t] - scores[s], leaf, create_graph=True)[0]
                boundaries.append((scores[t] - scores[s]) / g.flatten().norm(DUAL[norm]))
        hinge = [(1 - d / region).clamp(min=0) for d in kinks], [(1 - d / margin).clamp(min=0) for d in boundaries]
        rows.append(torch.stack(hinge[0]).mean() + torch.stack(hinge[1]).mean())
    return torch.stack(rows)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_linear_regions_equal_the_literal_loop(norm):
    model, (x, y) = relu_net(), batch()
    options: Any = {"region": 0.3, "margin": 2.0, "nearest": 4, "norm": norm}
    expected = literal_regions(model, x, y, **options)
    leaf = x.clone().requires_grad_()
    with KinkedUnits() as units:
        scores = model(leaf)
    assert [z.shape for z in units.found] == [(N, 3, 2, 2), (N, 7)]
    penalty = linear_region_penalty(scores, leaf, y, units.found, **options)
    agree(LinearRegions(0.4, candidates=None, **options)(model, x, y), penalty, expected, model, 0.4)
    few = linear_region_penalty(scores, leaf, y, units.found, candidates=4, **options)
    assert (few <= penalty + 1e-12).all()  # the nearest of a few are no nearer than the nearest of all


def test_functions_count_like_modules_and_dead_units_rest():
    def functional(x):
        hidden = F.relu(model[0](x)).flatten(1)
        return model[5](F.leaky_relu(model[3](hidden), 0.1))

    model, (x, y) = relu_net(), batch()
    options: Any = {"region": 0.3, "margin": 2.0, "nearest": 4, "candidates": None}
    torch.testing.assert_close(
        LinearRegions(1.0, **options)(model, x, y), LinearRegions(1.0, **options)(functional, x, y)
    )
    nn.init.zeros_(model[3].weight)  # type: ignore - the gradient of the second layer's units vanishes
    nn.init.zeros_(model[3].bias)  # type: ignore
    term = LinearRegions(1.0, region=1e-6, margin=1e-6, candidates=None)(model, x, y)
    assert term.isfinite()
    assert all(g.isfinite().all() for g in parameter_gradients(term, model))


def test_training_enlarges_the_certified_radius():
    """min(distance to the nearest kink, rho~) is a lower bound of the robustness: here it can be seen to grow."""
    model, (x, y) = relu_net(), batch()

    def radius():
        leaf = x.clone().requires_grad_()
        z = torch.cat(preactivations(model, leaf), 1)
        sizes = [torch.autograd.grad(c.sum(), leaf, retain_graph=True)[0].flatten(1).norm(dim=1) for c in z.T]
        kink = (z.detach().abs() / torch.stack(sizes, 1)).amin(1)
        return torch.minimum(kink, linear_analysis(model, x).linearized_robustness).median()

    before = radius()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    regularizer = LinearRegions(1.0, region=0.3, margin=0.3, candidates=None)
    for _ in range(60):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + regularizer(model, x, y)).backward()
        optimizer.step()
    assert radius() > 3 * before


def test_what_cannot_work_says_why():
    x, y = batch()
    with pytest.raises(ValueError, match=r"units: got \[\], expected pre-activations of 5 samples"):
        LinearRegions(1.0, region=0.1, margin=0.1)(tanh_net(), x, y)
    wrong: Any = (
        ({"region": 0.0, "margin": 1.0}, "region: got 0"),
        ({"region": 1.0, "margin": -1.0}, "margin: got -1.0"),
        ({"region": 1.0, "margin": 1.0, "nearest": 0}, "nearest: got 0"),
        ({"region": 1.0, "margin": 1.0, "norm": 3}, "norm: got 3"),
    )
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            LinearRegions(1.0, **options)
    with pytest.raises(ValueError, match="norm: got 1, expected 2 or inf"):
        TRADES(1.0, epsilon=0.1, norm=1)
    with pytest.raises(ValueError, match="inputs: lie in"):
        TRADES(1.0, epsilon=0.1)(tanh_net(), 2 * x, y)
    with pytest.raises(ValueError, match="adversarial_scores: got shape"):
        trades_penalty(torch.zeros(2, 3), torch.zeros(2, 4))
