import pytest
import torch
from torch import nn

from captum_alignment._core._failure import ModelFailure, check_callable, told

X = (torch.rand(2, 3),)


def test_what_torch_says_of_the_models_insides_becomes_one_sentence():
    found = told(RuntimeError("mat1 and mat2\nand more"), nn.Linear(4, 2), X)
    assert isinstance(found, ModelFailure)
    assert str(found) == "forward_func: raised RuntimeError for inputs of shape (2, 3): mat1 and mat2"
    assert "no message" in str(told(AssertionError(), nn.Linear(4, 2), X))


def test_another_dtype_than_the_models_is_named():
    found = told(RuntimeError("expected Double"), nn.Linear(3, 2).double(), X)
    assert "inputs: torch.float32 for a model of torch.float64 parameters" in str(found)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), RuntimeError("forward_func: told before")])
def test_what_the_author_says_passes(error):
    assert told(error, nn.Linear(3, 2), X) is error


def test_a_class_and_what_cannot_be_called_are_refused():
    check_callable(nn.Linear(3, 2))
    with pytest.raises(TypeError, match="got the class Linear, expected an instance"):
        check_callable(nn.Linear)
    with pytest.raises(TypeError, match="got int, expected a model"):
        check_callable(3)
