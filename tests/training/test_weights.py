"""The sweep over weights is what short fits by hand give."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment import linear_analysis
from captum_alignment.training import (
    InterpretationRegularizer,
    JacobianRegularizer,
    LocalLipschitz,
    input_gradient_penalty,
    suggest_weights,
)

K = 3


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % K
    centres = torch.eye(K).repeat_interleave(2, 1)
    return centres[labels] + 0.3 * torch.randn(n, 2 * K, generator=generator), labels


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2 * K, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, K))


def batches():
    return list(zip(*(part.split(10) for part in data(40, 0)), strict=True))


def by_hand(weight, steps):
    model = net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.manual_seed(0)
    for step in range(steps):
        x, y = batches()[step % 4]
        loss = F.cross_entropy(model(x), y)
        if weight:
            loss = loss + weight * LocalLipschitz(1.0)(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_rows_are_those_of_fits_by_hand():
    model, held_out = net(), data(30, 1)
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    sweep = suggest_weights(
        model, batches(), held_out, relative=(0.1, 1.0), steps=12, optimizer=lambda p: torch.optim.SGD(p, lr=0.5)
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    plain = by_hand(0.0, 12)
    penalties = []
    for x, y in batches():
        leaf = x.clone().requires_grad_()
        penalties.append(input_gradient_penalty(plain(leaf), leaf, y).mean().item())
    assert sweep.unit == pytest.approx(math.log(K) / (sum(penalties) / 4), rel=1e-5)
    assert sweep.weights == pytest.approx((0.0, 0.1 * sweep.unit, sweep.unit))
    for weight, accuracy, robustness, alignment in zip(
        sweep.weights, sweep.accuracy, sweep.linearized_robustness, sweep.alignment, strict=True
    ):
        fitted = by_hand(weight, 12)
        analysis = linear_analysis(fitted, held_out[0])
        assert accuracy == pytest.approx((fitted(held_out[0]).argmax(1) == held_out[1]).double().mean().item())
        assert robustness == pytest.approx(analysis.linearized_robustness.median().item(), rel=1e-5)
        assert alignment == pytest.approx(analysis.alignment.median().item(), rel=1e-5)
    allowed = [i for i in range(3) if sweep.accuracy[i] >= sweep.accuracy[0] - 0.02]
    assert sweep.best == sweep.weights[max(allowed, key=lambda i: sweep.linearized_robustness[i])]
    assert len(str(sweep).splitlines()) == 4


def test_a_drop_in_accuracy_counts_and_chance_repeats():
    held_out = data(30, 1)
    options: Any = {"relative": (0.1, 1e6), "steps": 20, "optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}
    one = suggest_weights(net(), batches(), held_out, regularizer=JacobianRegularizer(5.0), **options)
    two = suggest_weights(net(), batches(), held_out, regularizer=JacobianRegularizer(0.1), **options)
    assert one == two
    assert one.accuracy[2] < one.accuracy[0] - 0.02
    assert one.best < one.weights[2]
    late = suggest_weights(
        net(), batches(), held_out, regularizer=JacobianRegularizer(1.0), schedule=lambda _: 0.0, **options
    )
    assert len(set(late.linearized_robustness)) == 1
    assert late.best == 0


def test_what_cannot_work_says_why():
    held_out = data(30, 1)
    with pytest.raises(ValueError, match="weight: is no argument of InterpretationRegularizer"):
        suggest_weights(net(), batches(), held_out, regularizer=InterpretationRegularizer(1.0))
    with pytest.raises(ValueError, match="train: got no batches"):
        suggest_weights(net(), iter(batches()), held_out, steps=9)
    with pytest.raises(TypeError, match="held_out: got dict"):
        suggest_weights(net(), batches(), {"x": held_out})
    with pytest.raises(ValueError, match="steps: got 0"):
        suggest_weights(net(), batches(), held_out, steps=0)
    flat = nn.Linear(2 * K, K)
    nn.init.zeros_(flat.weight)
    with pytest.raises(ValueError, match="regularizer: its penalty is 0"):
        suggest_weights(flat, batches(), held_out, steps=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
