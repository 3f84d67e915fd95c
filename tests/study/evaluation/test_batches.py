import pytest
import torch
from torch import nn

from captum_alignment.study.evaluation._batches import BatchSize


def fits(limit, error, log):
    def run(batch):
        log.append(len(batch))
        if len(batch) > limit:
            raise error
        return batch

    return run


ONE = torch.rand(1, 10)
CPU_ERROR = RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), CPU_ERROR])
def test_the_automatic_batch_is_halved_until_it_fits_and_stays_so(error):
    size, log = BatchSize("auto", nn.Identity(), ONE), []
    parts = list(size.over(range(20), fits(6, error, log)))
    assert [i for part in parts for i in part] == list(range(20))
    assert log == [20, 10, 5, 5, 5, 5]
    log.clear()
    list(size.over(range(10), fits(6, error, log)))
    assert log == [5, 5]


def test_rows_of_tensors_are_slices():
    rows = list(BatchSize(3, nn.Identity(), ONE).over_rows(7, lambda rows: rows))
    assert rows == [slice(0, 3), slice(3, 6), slice(6, 7)]


def test_what_cannot_be_halved_is_an_error():
    with pytest.raises(MemoryError, match="1 samples do not fit into memory; no smaller"):
        list(BatchSize("auto", nn.Identity(), ONE).over(range(4), fits(0, MemoryError(), [])))
    with pytest.raises(MemoryError, match=r"batch_size: 4 samples .* 'auto'"):
        list(BatchSize(4, nn.Identity(), ONE).over(range(4), fits(2, MemoryError(), [])))
    with pytest.raises(RuntimeError, match="else"):
        list(BatchSize("auto", nn.Identity(), ONE).over(range(4), fits(2, RuntimeError("else"), [])))


def test_on_a_cpu_a_batch_is_as_large_as_its_graph_allows():
    def layers(features):  # of which each keeps 4 bytes of every feature
        return nn.Sequential(nn.Linear(1, features), *[nn.Tanh() for _ in range(8)]).eval()

    one = torch.rand(1, 1)
    assert BatchSize("auto", nn.Linear(1, 2), one).size == 100
    # 32 bytes of each of 2^20 features, and the input.
    assert BatchSize("auto", layers(2**20), one).size == 2**30 // (2**25 + 4)
    assert BatchSize(5, layers(2**20), one).size == 5


def test_a_model_that_takes_one_sample_at_a_time_gets_one():
    def single(images):
        assert len(images) == 1
        return images.flatten(1)

    assert BatchSize("auto", single, ONE).size == 1
