import pytest
import torch

from captum_alignment.study.evaluation._batches import BatchSize


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
