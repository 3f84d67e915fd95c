from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from captum_alignment._core._model import is_quantised, modules_behind

NET = nn.Linear(2, 3)


class Holder:
    def __init__(self, net):
        self.nets: dict[str, list[Any]] = {"a": [net]}

    def scores(self, x):
        return self.nets["a"][0](x)

    def __call__(self, x):
        return self.scores(x)


def closing(net):
    return lambda x: net(x)


def with_default(x, net=NET):
    return net(x)


def of_a_global(x):
    return NET(x)


@pytest.mark.parametrize(
    "forward_func",
    [NET, NET.forward, partial(NET), Holder(NET), Holder(NET).scores, closing(NET), with_default, of_a_global],
    ids=["module", "method", "partial", "object", "its method", "closure", "default", "global"],
)
def test_a_module_is_found_behind_every_callable_that_runs_it(forward_func):
    assert modules_behind(forward_func) == [NET]
    assert not is_quantised(forward_func)


def test_nothing_stands_behind_a_formula_and_what_holds_itself_ends():
    loop = Holder(NET)
    loop.nets["a"].append(loop)  # pyright: ignore[reportArgumentType]
    assert modules_behind(torch.sin) == []
    assert modules_behind(lambda x: x + 1) == []
    assert modules_behind(loop) == [NET]
