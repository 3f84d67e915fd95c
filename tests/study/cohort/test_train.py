import logging

import pytest
import torch
from lightning.pytorch import Callback

from captum_alignment.study.cohort import make_config
from captum_alignment.study.cohort._members import Member, make_members
from captum_alignment.study.cohort._train import load_network, train, train_members
from captum_alignment.study.fit import small_network
from captum_alignment.study.load import load_data

CPU = torch.device("cpu")
CONFIG = make_config(epochs=2)
MEMBERS = make_members({"lipschitz": (0.0, 0.3)}, (5, 6))
PLAIN = Member("standard", 0.0, 5)


def network() -> torch.nn.Sequential:
    return small_network((1, 8, 8), 10)


def regularized(strength=0.3, seed=5) -> Member:
    return Member("lipschitz", strength, seed)


@pytest.fixture(scope="module")
def samples():
    return load_data("digits", train_size=100, eval_size=20, seed=5).train


def weights(network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_the_small_network_is_the_papers(shape):
    network = small_network(shape, 10)
    assert network(torch.rand(2, *shape)).shape == (2, 10)
    convolutions = [layer.out_channels for layer in network if isinstance(layer, torch.nn.Conv2d)]
    assert convolutions == [32, 64, 128]
    with pytest.raises(ValueError, match="at least 8 x 8"):
        small_network((1, 7, 28), 10)


def test_training_is_reproducible_and_leaves_the_global_generator_alone(samples, tmp_path):
    def trained(member, folder="a"):
        return weights(train(member, network, samples, CONFIG, tmp_path / folder, device=CPU))

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = trained(regularized())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(trained(regularized(), "b"), first)
    assert not torch.equal(trained(regularized(seed=6)), first)
    assert not torch.equal(trained(PLAIN), first)


def test_regularized_training_is_the_loop_written_by_hand(samples, tmp_path):
    """SGD on cross-entropy + λ · mean ‖∇ₓ CE_i‖² (one full batch; no dropout, so that its order does not matter)."""

    def without_dropout():
        made = network()
        made[12].p = 0.0  # pyright: ignore
        return made

    config = make_config(preset="etmann-mnist", dataset="digits", epochs=2)
    found = weights(train(regularized(5.0, 0), without_dropout, samples, config, tmp_path, device=CPU))
    torch.manual_seed(0)
    by_hand = without_dropout()
    start = weights(by_hand)
    optimizer = torch.optim.SGD(by_hand.parameters(), 1e-3, momentum=0.9, weight_decay=1e-6)
    for _ in range(2):
        images = samples.images.clone().requires_grad_()
        losses = torch.nn.functional.cross_entropy(by_hand(images), samples.labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), images, create_graph=True)
        optimizer.zero_grad()
        (losses.mean() + 5.0 * gradient.flatten(1).pow(2).sum(1).mean()).backward()
        optimizer.step()
    assert (found - weights(by_hand)).norm() < 1e-3 * (found - start).norm()


def test_ctrl_c_reaches_the_caller(samples, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(PLAIN, network, samples, CONFIG, tmp_path, device=CPU, callbacks=[Interrupt()])


def test_a_training_that_diverges_is_named_and_leaves_no_weights(samples, tmp_path):
    config, member = make_config(preset="etmann-mnist", dataset="digits", epochs=9), regularized(1e30)
    with pytest.raises(ValueError, match=r"lipschitz-1e\+30_seed-5: .*nan"):
        train(member, network, samples, config, tmp_path, device=CPU)
    assert not member.weights_file(tmp_path).exists()


def test_lightning_is_silent_and_its_loggers_are_restored(samples, tmp_path, capfd, caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    train(PLAIN, network, samples, CONFIG, tmp_path, device=CPU)
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])
    assert logger.level == level


def test_only_what_is_missing_is_trained(samples, tmp_path, monkeypatch):
    train_members(MEMBERS, network, samples, CONFIG, tmp_path, device=CPU)
    files = [member.weights_file(tmp_path) for member in MEMBERS]
    before = [file.read_bytes() for file in files]
    files[2].unlink()
    trained = []
    monkeypatch.setattr(
        "captum_alignment.study.cohort._train.train",
        lambda member, *a, **k: trained.append(member) or train(member, *a, **k),
    )
    train_members(MEMBERS, network, samples, CONFIG, tmp_path, device=CPU)
    assert trained == [MEMBERS[2]]
    assert not load_network(MEMBERS[2], network, tmp_path).training
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_file_without_weights_is_named(tmp_path, content):
    PLAIN.weights_file(tmp_path).parent.mkdir()
    PLAIN.weights_file(tmp_path).write_bytes(content)
    with pytest.raises(ValueError, match=r"standard_seed-5.pt: holds no weights of this network"):
        load_network(PLAIN, network, tmp_path)
