"""A network that is trained once and kept."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from captum_alignment.study.store import read_weights, write_weights

#: Not one of the seeds of a grid, whose networks would begin where the explained one began.
SEED = 2**31 - 1


def kept(path: Path, make: Callable[[], nn.Module], train: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The network of the weights in ``path``, in evaluation mode on the CPU.

    Where there are none, what ``train`` returns; its weights are there from then on.

    Raises:
        ValueError: weights of another network, or none without ``train``.
    """
    if train is not None and not path.is_file():
        write_weights(path, train().state_dict())
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced, and chance stays the caller's
        network = make()
    try:
        network.load_state_dict(read_weights(path))
    except Exception as error:
        raise ValueError(f"{path}: holds no weights of this network; remove it and it is trained again") from error
    return network.eval()
