"""The skorch callback against the same loop written by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

skorch = pytest.importorskip("skorch")

from captum_alignment.training import (  # noqa: E402
    JacobianRegularizer,
    LocalLipschitz,
    SkorchAdversarialTraining,
    SkorchRegularization,
    adversarial_examples,
)

N, BATCH, K = 20, 8, 3


def data():
    return np.random.default_rng(0).random((N, 6), dtype=np.float32), np.arange(N) % K


def tanh_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, K))


def net(*callbacks, module=None):
    return skorch.NeuralNetClassifier(
        module or tanh_net(), criterion=nn.CrossEntropyLoss, callbacks=list(callbacks), batch_size=BATCH,
        max_epochs=2, lr=0.1, train_split=None, verbose=0,
    )  # fmt: skip


def by_hand(regularizer, schedule=lambda step: 1.0):
    x, y = map(torch.from_numpy, data())
    model, terms = tanh_net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for inputs, target in zip(x.split(BATCH), y.split(BATCH), strict=True):
            term = schedule(len(terms)) * regularizer(model, inputs, target)
            optimizer.zero_grad()
            (F.cross_entropy(model(inputs), target) + term).backward()
            optimizer.step()
            terms.append(term.item())
    return model, terms


def test_training_equals_the_loop_written_by_hand():
    fitted = net(SkorchRegularization(LocalLipschitz(0.5))).fit(*data())
    model, terms = by_hand(LocalLipschitz(0.5))
    for ours, theirs in zip(fitted.module_.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    batches = [row for epoch in fitted.history for row in epoch["batches"]]
    assert [row["local_lipschitz"] for row in batches] == pytest.approx(terms)
    assert min(row["local_lipschitz_gradient_norm"] for row in batches) > 0


def test_the_schedule_counts_batches():
    def schedule(step):
        return 0.3 * step

    fitted = net(SkorchRegularization(JacobianRegularizer(0.5, projections=None), schedule=schedule)).fit(*data())
    model, _ = by_hand(JacobianRegularizer(0.5, projections=None), schedule)
    for ours, theirs in zip(fitted.module_.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unpack_and_grid_search():
    from sklearn.base import clone

    callback = SkorchRegularization(LocalLipschitz(0.5), unpack=lambda batch: (batch[0], batch[1]))
    copied: Any = clone(net(callback))
    fitted = copied.fit(*data())
    model, _ = by_hand(LocalLipschitz(0.5))
    for ours, theirs in zip(fitted.module_.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def parameters_equal(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("clip_first", [False, True])
def test_clipping_in_any_order_clips_the_gradient_of_the_sum(clip_first):
    from skorch.callbacks import GradientNormClipping

    callbacks = [SkorchRegularization(LocalLipschitz(5.0)), GradientNormClipping(0.05)]
    fitted = net(*(callbacks[::-1] if clip_first else callbacks)).fit(*data())
    x, y = map(torch.from_numpy, data())
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for inputs, target in zip(x.split(BATCH), y.split(BATCH), strict=True):
            optimizer.zero_grad()
            (F.cross_entropy(model(inputs), target) + LocalLipschitz(5.0)(model, inputs, target)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
    parameters_equal(fitted.module_, model)


def test_the_weight_is_a_parameter_of_a_grid_search():
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        net(SkorchRegularization(LocalLipschitz(7.0))),
        {"callbacks__SkorchRegularization__weight": [np.float64(0.5)]},
        cv=2,
    )
    found: Any = search.fit(*data())
    model, _ = by_hand(LocalLipschitz(0.5))
    parameters_equal(found.best_estimator_.module_, model)
    callback = SkorchRegularization(LocalLipschitz(7.0, norm=1))
    callback.set_params(regularizer__weight=0.5, regularizer__norm=2)
    parameters_equal(net(callback).fit(*data()).module_, model)
    with pytest.raises(ValueError, match="height: is no argument of LocalLipschitz"):
        callback.set_params(regularizer__height=1)


def test_two_callbacks_do_not_share_a_key():
    callbacks = [("a", SkorchRegularization(LocalLipschitz(0.5))), ("b", SkorchRegularization(LocalLipschitz(0.1)))]
    estimator = net()
    estimator.set_params(callbacks=callbacks)
    batches = [row for epoch in estimator.fit(*data()).history for row in epoch["batches"]]
    assert batches[0]["local_lipschitz"] == pytest.approx(5 * batches[0]["local_lipschitz_2"])


def test_a_binary_classifier_is_trained_on_its_one_logit():
    x, y = data()
    y = (y > 0).astype(np.float32)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    model.load_state_dict(module.state_dict())
    estimator = skorch.NeuralNetBinaryClassifier(
        module, callbacks=[SkorchRegularization(LocalLipschitz(0.5))], batch_size=BATCH, max_epochs=1, lr=0.1,
        train_split=None, verbose=0,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, target in zip(torch.from_numpy(x).split(BATCH), torch.from_numpy(y).split(BATCH), strict=True):
        leaf = inputs.clone().requires_grad_()
        losses = F.binary_cross_entropy_with_logits(model(leaf), target, reduction="none")
        (g,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
        optimizer.zero_grad()
        (losses.mean() + 0.5 * g.square().sum(1).mean()).backward()
        optimizer.step()
    parameters_equal(estimator.fit(x, y).module_, model)


def test_adversarial_training_equals_the_loop_written_by_hand():
    x, y = data()
    before = x.copy()
    options: Any = {"attack": "pgd-linf", "epsilon": 0.1, "steps": 3}
    fitted = net(SkorchAdversarialTraining(0.1, attack="pgd-linf", steps=3, bounds=(0, 1))).fit(x, y)
    assert np.array_equal(x, before)
    model, generator = tanh_net(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for inputs, target in zip(torch.from_numpy(x).split(BATCH), torch.from_numpy(y).split(BATCH), strict=True):
            found = adversarial_examples(model, inputs, target, generator=generator, **options)
            optimizer.zero_grad()
            F.cross_entropy(model(found), target).backward()
            optimizer.step()
    parameters_equal(fitted.module_, model)


def test_what_cannot_work_says_why():
    with pytest.raises(TypeError, match="regularizer: got float, expected a Regularizer"):
        net(SkorchRegularization(1.0)).fit(*data())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="schedule: got -1"):
        net(SkorchRegularization(LocalLipschitz(1.0), schedule=lambda step: -1)).fit(*data())
    with pytest.raises(TypeError, match="unpack: returned Tensor"):
        net(SkorchRegularization(LocalLipschitz(1.0), unpack=lambda batch: batch[0])).fit(*data())
    steep = nn.Linear(6, K)
    nn.init.constant_(steep.weight, 1e30)
    with pytest.raises(ValueError, match="local_lipschitz: the term is inf at batch 0"):
        net(SkorchRegularization(LocalLipschitz(1.0, of="score")), module=steep).fit(*data())
    probabilities = skorch.NeuralNetClassifier(
        nn.Sequential(tanh_net(), nn.Softmax(1)), callbacks=[SkorchRegularization(LocalLipschitz(1.0))], verbose=0
    )
    with pytest.raises(ValueError, match="criterion: got NLLLoss"):
        probabilities.fit(*data())
    with pytest.raises(ValueError, match="attack: got 'fgsm'"):
        net(SkorchAdversarialTraining(0.1, attack="fgsm")).fit(*data())  # pyright: ignore[reportArgumentType]
