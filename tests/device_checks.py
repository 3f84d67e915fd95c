"""What is tried on a device other than the CPU: functions of ``move``, which brings tensors and models there."""

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

import captum_alignment as ca
from captum_alignment import metrics, robust, training
from captum_alignment.study import evaluate

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
    # Among the scalars are the passes: they tell the sketch from the loop over the rivals.
    return lambda m: ca.linear_analysis(net(m, k), x(m), on(m), **options).scalars()


def distance(attack, norm):
    return lambda m: ca.adversarial_distance(net(m), x(m), attacks={"one": attack}, norm=norm, refine=False).distance


def evaluated(copies):
    """The numbers of `evaluate` on copies of the same samples, whose attack takes as many steps."""

    def check(move):
        model, images = net(move), X.repeat(copies, 1, 1, 1)
        table = evaluate(model, images, attacks={"one": robust.GradientAttack(steps=20)}, part_size=len(images))
        return move(torch.tensor(table[["distance", "alignment", "bias", "null"]].to_numpy(float)).float())

    return check


def attributed(move):
    """The numbers of `evaluate` that are measured of an attribution."""
    masks: Any = MAPS[:, 0] > 0
    options: Any = {"attacks": {"one": robust.GradientAttack(steps=5)}, "attributions": "saliency", "masks": masks}
    table = evaluate(net(move), X, **options).filter(regex=":saliency|deletion:random|^mask$")
    return move(torch.tensor(table.filter(regex="^(?!seconds|failed)").to_numpy(float)).float())


class Module(LightningModule):
    """What callbacks are called with; no trainer knows the pretended device."""

    def __init__(self, model):
        super().__init__()
        self.model, self.logged = model, {}
        self.example = next(model.parameters())

    @property
    def device(self):
        return self.example.device

    def forward(self, x):
        return self.model(x)

    def log_dict(self, dictionary, **options):  # pyright: ignore[reportIncompatibleMethodOverride]
        self.logged |= dictionary


def step_with_callback(forward):
    """One training step with `RegularizationCallback`."""

    def check(move):
        module, batch = Module(net(move, train=True)), (x(move), y(move))
        trainer: Any = SimpleNamespace(
            global_step=0,
            precision_plugin=SimpleNamespace(forward_context=nullcontext),
            accumulate_grad_batches=1,
            barebones=True,
        )
        callback = training.RegularizationCallback(training.LocalLipschitz(1.0), forward=forward, check=False)
        callback.on_train_batch_start(trainer, module, batch, 0)
        loss = nn.functional.cross_entropy(module(batch[0]), batch[1])
        callback.on_before_backward(trainer, module, loss)
        module.backward(loss)
        callback.on_train_batch_end(trainer, module, None, batch, 0)
        return loss.detach(), [p.grad for p in module.model.parameters()]

    return check


def validated(copies):
    """The medians that `EvaluationCallback` logs, of copies of the same samples."""

    def check(move):
        module, images = Module(net(move)), move(X.repeat(copies, 1, 1, 1))
        callback = training.EvaluationCallback(samples=len(images))
        trainer: Any = SimpleNamespace(sanity_checking=False, current_epoch=0)
        callback.on_validation_batch_start(trainer, module, (images, None), 0)
        callback.on_validation_epoch_end(trainer, module)
        return torch.stack(list(module.logged.values()))

    return check


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
    "pointing_game": lambda m: metrics.pointing_game(maps(m), maps(m)[:, 0] > 0),
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
    "RegularizationCallback, shared": step_with_callback("shared"),
    "RegularizationCallback, own": step_with_callback("own"),
    **{f"EvaluationCallback, {copies} copies": validated(copies) for copies in (1, 3)},
    **{f"evaluate, {copies} copies": evaluated(copies) for copies in (1, 3)},
    "evaluate with an attribution": attributed,
    "thorough": lambda m: ca.adversarial_distance(net(m), x(m), attacks="thorough").distance,
}
