"""What is tried on a device other than the CPU: functions of ``move``, which brings tensors and models there."""

import math

import torch
from torch import nn

import captum_alignment as ca
from captum_alignment import metrics, robust, training

_chance = torch.Generator().manual_seed(0)
X, MAPS, Y = torch.rand(7, 1, 8, 8, generator=_chance), torch.randn(7, 1, 8, 8, generator=_chance), torch.arange(7)


def net(move, k=10, train=False):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten()
    last = nn.Linear(64, k)
    last.weight.data *= 3
    return move(nn.Sequential(*layers, last).train(train))


def x(move):
    return move(X.clone())


def maps(move):
    return move(MAPS.clone())


def y(move):
    return move(Y.clone())


def with_gradients(model, value):
    value.mean().backward()
    return value.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def penalty(function):
    def check(move):
        model, inputs = net(move, train=True), x(move).requires_grad_()
        return with_gradients(model, function(model(inputs), inputs, move))

    return check


def regularizer(make, *extras):
    def check(move):
        model = net(move, train=True)
        return with_gradients(model, make()(model, x(move), y(move), *(extra(move) for extra in extras)))

    return check


def analysis(k=10, on=y, **options):
    # A generator of the CPU: a pretended device has none.
    return lambda m: ca.linear_analysis(
        net(m, k), x(m), on(m), generator=torch.Generator().manual_seed(0), **options
    ).scalars()


def distance(attack, norm):
    return lambda m: ca.adversarial_distance(net(m), x(m), attacks={"one": attack}, norm=norm, refine=False).distance


REGULARIZERS = {
    "LocalLipschitz": lambda **k: training.LocalLipschitz(1.0, **k),
    "LocalLipschitz of the margin, l_inf": lambda **k: training.LocalLipschitz(1.0, of="margin", norm=math.inf, **k),
    "JacobianRegularizer": lambda **k: training.JacobianRegularizer(1.0, **k),
    "JacobianRegularizer, exact": lambda **k: training.JacobianRegularizer(1.0, projections=None, **k),
    "LargeMargin": lambda **k: training.LargeMargin(1.0, margin=1.0, **k),
    "AlignmentRegularizer": lambda **k: training.AlignmentRegularizer(1.0, **k),
    "InterpretationRegularizer": lambda **k: training.InterpretationRegularizer(1.0, 0.1, **k),
}
ATTACKS = {
    "FAB": lambda norm: robust.FAB(norm=norm, steps=20),
    "DeepFool": lambda norm: robust.DeepFool(norm=norm, steps=20),
    "RivalSearch": lambda norm: robust.RivalSearch(norm=norm),
    "GradientAttack": lambda norm: robust.GradientAttack(norm=norm, steps=100),
}

CHECKS = {
    "alignment": lambda m: ca.alignment(x(m), maps(m)),
    "alignment, l_inf": lambda m: ca.alignment(x(m), maps(m), norm=math.inf, normalize=True),
    "alignment_null": lambda m: metrics.alignment_null(x(m), maps(m)),
    "linear_analysis": analysis(),
    "linear_analysis, predicted class": analysis(on=lambda m: None),
    "linear_analysis, target of the CPU": analysis(on=lambda m: Y),
    "linear_analysis, K = 64": analysis(64, on=lambda m: None),
    "linear_analysis, l_1": analysis(64, norm=1),
    "sketch, l_2": analysis(200, on=lambda m: None),
    "sketch, l_inf": analysis(200, on=lambda m: None, norm=math.inf),
    "LinearizedRobustness": lambda m: ca.LinearizedRobustness(net(m)).attribute(x(m)),
    "Alignment": lambda m: ca.Alignment(net(m))(x(m)),
    "linearity_profile": lambda m: metrics.linearity_profile(net(m), x(m)),
    "relevance_mass_accuracy": lambda m: metrics.relevance_mass_accuracy(maps(m), maps(m)[:, 0] > 0),
    "rank_correlation": lambda m: metrics.rank_correlation(maps(m), x(m)),
    "remove_features": lambda m: metrics.remove_features(x(m), maps(m), 0.3, baselines=0.0),
    "deletion_curve": lambda m: metrics.deletion_curve(net(m), x(m), maps(m), baselines=0.0),
    "input_gradient_penalty": penalty(lambda s, v, m: training.input_gradient_penalty(s, v, y(m))),
    "margin_penalty": penalty(lambda s, v, m: training.margin_penalty(s, v, y(m), margin=1.0)),
    "jacobian_penalty": penalty(lambda s, v, m: training.jacobian_penalty(s, v)),
    "saliency_penalty": penalty(lambda s, v, m: training.saliency_penalty(s, v, y(m), maps(m), magnitude=0.1)),
    "alignment_penalty": penalty(lambda s, v, m: training.alignment_penalty(s, v, y(m))),
    "adversarial_examples": lambda m: training.adversarial_examples(
        net(m), x(m), y(m), attack="pgd-l2", epsilon=0.3, steps=20
    ),
    **{
        f"{name}, {method}": regularizer(
            lambda make=make, method=method: make(method=method),
            *([maps] if name.startswith("Interpretation") else []),
        )
        for name, make in REGULARIZERS.items()
        for method in ("double-backward", "finite-difference")
    },
    **{f"{name}, {norm}": distance(make(norm), norm) for name, make in ATTACKS.items() for norm in (2, math.inf)},
    "thorough": lambda m: ca.adversarial_distance(net(m), x(m), attacks="thorough").distance,
}
