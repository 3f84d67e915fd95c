"""The skorch callback against the same loop written by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

skorch = pytest.importorskip("skorch")

from captum_alignment.training import JacobianRegularizer, LocalLipschitz, SkorchRegularization  # noqa: E402

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


def test_what_cannot_work_says_why():
    with pytest.raises(TypeError, match="regularizer: got float, expected a Regularizer"):
        net(SkorchRegularization(1.0)).fit(*data())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="schedule: got -1"):
        net(SkorchRegularization(LocalLipschitz(1.0), schedule=lambda step: -1)).fit(*data())
    with pytest.raises(TypeError, match="batch: got Tensor"):
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
