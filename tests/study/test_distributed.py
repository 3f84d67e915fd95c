import pytest

from captum_alignment.study._distributed import Processes, local_rank, processes


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
