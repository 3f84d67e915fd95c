"""Questions about values that only the host can act on: an accelerator waits for each, so they are asked together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import torch
from torch import Tensor

#: A 0-d bool tensor, and what is done where it is true.
Question: TypeAlias = tuple[Tensor, Callable[[], None]]

_waiting: ContextVar[list[Question] | None] = ContextVar("waiting", default=None)


def ask(*questions: Question) -> None:
    """Does what the questions say, in order: now, or, inside `together`, at its end."""
    waiting = _waiting.get()
    if waiting is not None:
        waiting.extend(questions)
        return
    for device in dict.fromkeys(flag.device for flag, _ in questions):
        mine = [question for question in questions if question[0].device == device]
        answers = torch.stack([flag for flag, _ in mine]).tolist()
        for yes, (_, act) in zip(answers, mine, strict=True):
            if yes:
                act()


@contextmanager
def together() -> Iterator[None]:
    """What is asked inside is answered at the end, once; until then, wrong values are computed with."""
    if _waiting.get() is not None:
        yield
        return
    waiting: list[Question] = []
    token = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(token)
    ask(*waiting)
