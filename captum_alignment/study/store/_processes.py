"""Several processes that share the parts of one evaluation, started by torchrun or anything that sets its variables."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch.distributed as dist

T = TypeVar("T")

#: A process that has done its share waits for the slowest one; if that one dies, the launcher ends all of them. In
#: milliseconds it must fit into 32 bits: gloo gives up connecting at once where it overflows.
_PATIENCE = timedelta(days=7)
#: The launcher's store, which counts what is taken, while this job's process group is ours.
_STORES: list[Any] = []


@dataclass(frozen=True)
class Processes:
    """This process's rank among ``size``, and the group over which a few bytes travel; None for a single process.

    Without a ``store`` (the process group is the caller's) the shares are fixed: every ``size``-th item.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    store: Any = None

    def share(self, items: Sequence[T], elsewhere: Callable[[Sequence[T]], object] = len) -> Iterator[T]:
        """The items that fall to this process: whoever is free takes the next one.

        ``elsewhere`` is called, before each item and at the end, with those that other processes have taken meanwhile.
        """
        seen = 0
        for place in self._places(len(items)):
            elsewhere(items[seen:place])
            yield items[place]
            seen = place + 1
        elsewhere(items[seen:])

    def _places(self, count: int) -> Iterator[int]:
        if self.store is None:
            yield from range(self.rank, count, self.size)
            return
        key = self.from_first(lambda: uuid4().hex)  # the store may outlive a restart
        while (taken := self.store.add(key, 1)) <= count:
            yield taken - 1

    def from_first(self, function: Callable[[], T]) -> T:
        """What ``function`` returns on rank 0, on all ranks; what it raises there is raised by all."""
        if self.group is None:
            return function()
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = function()
            except Exception as error:  # whatever it is, the others must not wait for a result that never comes
                box[1] = error
        dist.broadcast_object_list(box, group=self.group, group_src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def wait(self) -> None:
        """Until all ranks have come here."""
        if self.group is not None:
            dist.barrier(self.group)


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this job: the caller's process group, else the one of the environment (RANK, WORLD_SIZE, ...).

    Only a few bytes are exchanged, so gloo serves GPUs as well; a group that the caller made, with nccl or gloo, stays.
    """
    mine = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if mine:
        store, rank, size = next(dist.rendezvous("env://"))
        # The launcher's store outlives processes: after a restart it still has the addresses of those that died.
        store = dist.PrefixStore(f"captum-alignment-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        _STORES.append(dist.PrefixStore("taken", store))
    try:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            yield Processes()
            return
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        try:
            yield Processes(dist.get_rank(), dist.get_world_size(), group, _STORES[-1] if _STORES else None)
        finally:
            if not mine:
                dist.destroy_process_group(group)
    finally:
        if mine:
            _STORES.clear()
            dist.destroy_process_group()


def local_rank() -> int:
    """Which of its machine's processes this is; 0 where nothing says so."""
    return int(os.environ.get("LOCAL_RANK", "0"))
