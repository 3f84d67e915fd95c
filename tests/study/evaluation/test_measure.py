import contextlib

import pytest
import torch
from torch import nn

from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._measure import usable_scores
from captum_alignment.study.load import Autocast, evaluation_mode
from tests.nets import cnn, images


def fits(limit, error, log):
    def run(batch):
        log.append(len(batch))
        if len(batch) > limit:
            raise error
        return batch

    return run


CPU_ERROR = RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), CPU_ERROR])
def test_the_automatic_batch_is_halved_until_it_fits_and_stays_so(error):
    size, log = BatchSize("auto", 10, torch.device("cpu")), []
    parts = list(size.over(range(20), fits(6, error, log)))
    assert [i for part in parts for i in part] == list(range(20))
    assert log == [20, 10, 5, 5, 5, 5]
    log.clear()
    list(size.over(range(10), fits(6, error, log)))
    assert log == [5, 5]


def test_what_cannot_be_halved_is_an_error():
    with pytest.raises(MemoryError, match="1 samples do not fit into memory; no smaller"):
        list(BatchSize("auto", 10, torch.device("cpu")).over(range(4), fits(0, MemoryError(), [])))
    with pytest.raises(MemoryError, match=r"batch_size: 4 samples .* 'auto'"):
        list(BatchSize(4, 10, torch.device("cpu")).over(range(4), fits(2, MemoryError(), [])))
    with pytest.raises(RuntimeError, match="else"):
        list(BatchSize("auto", 10, torch.device("cpu")).over(range(4), fits(2, RuntimeError("else"), [])))


def test_large_images_start_with_a_small_batch_on_a_cpu():
    assert BatchSize("auto", 3 * 224 * 224, torch.device("cpu")).size == 13
    assert BatchSize("auto", 10**9, torch.device("cpu")).size == 1
    assert BatchSize(5, 10**9, torch.device("cpu")).size == 5


def test_evaluation_mode_leaves_every_module_as_it_was():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2)).train()
    net[1].eval()
    with contextlib.suppress(KeyError), evaluation_mode(net):
        assert not any(module.training for module in net.modules())
        raise KeyError  # also then
    assert [module.training for module in net.modules()] == [True, True, False, True]
    with evaluation_mode(lambda x: x):
        pass


def test_scores_that_mean_nothing_are_seen():
    def model(x):
        return x.flatten(1)

    inputs = torch.tensor([[[1.0, 2.0]], [[1.0, -torch.inf]], [[torch.nan, 0.0]], [[torch.inf, 0.0]]])
    assert usable_scores(model, inputs).tolist() == [True, True, False, False]


def test_autocast_runs_in_the_dtype_and_returns_float32():
    net, x = cnn().float(), images().float()
    reduced = Autocast(net, torch.bfloat16)
    scores = reduced(x)
    assert scores.dtype == torch.float32
    error = (scores - net(x)).abs().max()
    assert 0 < error < 0.05 * net(x).abs().max()
