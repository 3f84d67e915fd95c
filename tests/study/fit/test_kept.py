import pytest
import torch

from captum_alignment.study.fit import Retraining, count_correct, trained
from captum_alignment.study.load import as_split
from captum_alignment.study.store import state_hash, write_weights
from tests.study.roar.known import FAST, TRAIN, known_network, network

SPLIT = as_split(TRAIN, "train", (0, 1))
CPU = torch.device("cpu")


def test_the_network_is_trained_once_and_then_read(tmp_path):
    kept = tmp_path / "model.pt"
    first = trained(network, kept, SPLIT, Retraining(**FAST), device=CPU)
    assert count_correct(first, SPLIT, CPU) > 0.95 * len(SPLIT)
    write_weights(kept, known_network().state_dict())
    again = trained(network, kept, SPLIT, Retraining(**FAST), device=CPU)
    assert state_hash(again.state_dict()) == state_hash(known_network().state_dict())
    with pytest.raises(ValueError, match="holds no weights of this network"):
        trained(lambda: network(3), kept, SPLIT, Retraining(**FAST), device=CPU)
