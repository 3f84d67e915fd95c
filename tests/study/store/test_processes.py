import pytest
import torch.distributed as dist

from captum_alignment.study.store import Processes, _processes, local_rank, processes


def test_a_single_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as group:
        assert group == Processes(0, 1, None)
        assert group.from_first(lambda: 3) == 3
        group.wait()
        with pytest.raises(ZeroDivisionError):
            group.from_first(lambda: 1 // 0)


def test_the_local_rank_is_that_of_the_environment(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert local_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_rank() == 3


def test_every_item_falls_to_one_process():
    shares = [list(Processes(rank, 3).share("abcdefgh")) for rank in range(3)]
    assert ["".join(share) for share in shares] == ["adg", "beh", "cf"]
    assert list(Processes().share("abc")) == ["a", "b", "c"]


def test_whoever_is_free_takes_the_next_item(monkeypatch):
    key = _processes.uuid4()
    monkeypatch.setattr(_processes, "uuid4", lambda: key)
    store, told = dist.HashStore(), ([], [])
    first, second = (Processes(rank, 2, None, store).share("abcdef", told[rank].append) for rank in range(2))
    assert [next(process) for process in (first, second, second, second, first, second)] == list("abcdef")
    assert (list(first), list(second)) == ([], [])
    assert tuple("".join(items) for items in told) == ("bcdf", "ae")
