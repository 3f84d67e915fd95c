import pytest
import torch

from captum_alignment.study.fit import kept
from captum_alignment.study.store import state_hash
from tests.study.roar.known import known_network, network


def test_the_network_is_trained_once_and_then_read(tmp_path):
    path, calls = tmp_path / "new" / "model.pt", []
    first = kept(path, network, lambda: calls.append(1) or known_network())
    again = kept(path, network, lambda: calls.append(1) or known_network())
    assert len(calls) == 1
    assert state_hash(first.state_dict()) == state_hash(again.state_dict()) == state_hash(known_network().state_dict())
    assert not first.training
    state = torch.get_rng_state()
    kept(path, network)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"model\.pt: holds no weights of this network"):
        kept(path, lambda: network(3))


def test_without_weights_and_training_there_is_no_network(tmp_path):
    with pytest.raises(ValueError, match="holds no weights"):
        kept(tmp_path / "model.pt", lambda: torch.nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())
