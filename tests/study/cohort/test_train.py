import logging

import pytest
import torch
from lightning.pytorch import Callback

from captum_alignment.study.cohort import make_config
from captum_alignment.study.cohort._train import (
    Member,
    build_network,
    load_network,
    members,
    study_data,
    train,
    train_cohort,
)
from captum_alignment.study.fit import SmallNet

CPU = torch.device("cpu")
CONFIG = make_config(strengths=(0.3, 0.0), epochs=2, train_size=100, eval_size=20, seeds=2, seed=5)


@pytest.fixture(scope="module")
def data():
    return study_data(CONFIG)


def weights(network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_small_net_is_the_papers(shape):
    network = SmallNet(shape, 10)
    assert network(torch.rand(2, *shape)).shape == (2, 10)
    convolutions = [layer.out_channels for layer in network if isinstance(layer, torch.nn.Conv2d)]
    assert convolutions == [32, 64, 128]
    with pytest.raises(ValueError, match="at least 8 x 8"):
        SmallNet((1, 7, 28), 10)


def test_members_are_every_strength_with_every_seed():
    names = [member.name for member in members(CONFIG)]
    assert names == ["strength-0_seed-5", "strength-0_seed-6", "strength-0.3_seed-5", "strength-0.3_seed-6"]


def test_training_is_reproducible_and_leaves_the_global_generator_alone(data, tmp_path):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights(train(Member(0.3, 5), CONFIG, data, tmp_path, device=CPU))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(weights(train(Member(0.3, 5), CONFIG, data, tmp_path, device=CPU)), first)
    assert not torch.equal(weights(train(Member(0.3, 6), CONFIG, data, tmp_path, device=CPU)), first)
    assert not torch.equal(weights(train(Member(0.0, 5), CONFIG, data, tmp_path, device=CPU)), first)


def test_regularized_training_is_the_loop_written_by_hand(data, tmp_path, monkeypatch):
    """SGD on cross-entropy + λ · mean ‖∇ₓ CE_i‖² (one full batch; no dropout, so that its order does not matter)."""

    def without_dropout(data):
        network = build_network(data)
        network[12].p = 0.0  # pyright: ignore
        return network

    monkeypatch.setattr("captum_alignment.study.cohort._train.build_network", without_dropout)
    config = make_config(preset="etmann-mnist", dataset="digits", epochs=2, train_size=100, eval_size=20)
    found = weights(train(Member(5.0, 0), config, data, tmp_path, device=CPU))
    torch.manual_seed(0)
    network = without_dropout(data)
    start = weights(network)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, weight_decay=1e-6)
    for _ in range(2):
        images = data.train.images.clone().requires_grad_()
        losses = torch.nn.functional.cross_entropy(network(images), data.train.labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), images, create_graph=True)
        optimizer.zero_grad()
        (losses.mean() + 5.0 * gradient.flatten(1).pow(2).sum(1).mean()).backward()
        optimizer.step()
    assert (found - weights(network)).norm() < 1e-3 * (found - start).norm()


def test_ctrl_c_reaches_the_caller(data, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Member(0.0, 0), CONFIG, data, tmp_path, device=CPU, callbacks=[Interrupt()])


def test_a_training_that_diverges_is_named(data, tmp_path):
    config = make_config(preset="etmann-mnist", dataset="digits", epochs=9, train_size=100, eval_size=20)
    with pytest.raises(ValueError, match="strength 1e\\+30, seed 5"):
        train(Member(1e30, 5), config, data, tmp_path, device=CPU)


def test_lightning_is_silent_and_its_loggers_are_restored(data, tmp_path, capfd, caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    train(Member(0.0, 0), CONFIG, data, tmp_path, device=CPU)
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])
    assert logger.level == level


def test_only_what_is_missing_is_trained(data, tmp_path, monkeypatch):
    train_cohort(CONFIG, data, tmp_path, device=CPU)
    cohort = members(CONFIG)
    files = [member.weights_file(tmp_path) for member in cohort]
    before = [file.read_bytes() for file in files]
    files[2].unlink()
    trained = []
    monkeypatch.setattr(
        "captum_alignment.study.cohort._train.train",
        lambda member, *a, **k: trained.append(member) or train(member, *a, **k),
    )
    train_cohort(CONFIG, data, tmp_path, device=CPU)
    assert trained == [cohort[2]]
    network = load_network(cohort[2], data, tmp_path)
    assert not network.training
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_file_without_weights_is_named(data, tmp_path, content):
    member = Member(0.0, 0)
    member.weights_file(tmp_path).parent.mkdir()
    member.weights_file(tmp_path).write_bytes(content)
    with pytest.raises(ValueError, match=r"strength-0_seed-0.pt: holds no weights of this network"):
        load_network(member, data, tmp_path)
