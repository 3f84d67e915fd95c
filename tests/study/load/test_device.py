import pytest
import torch

from captum_alignment.study.load import as_device


def test_a_device_by_name():
    assert as_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cpu:x", "cuda:99"])
def test_one_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=f"device: got '{name}', which is not available here; expected cpu"):
        as_device(name)
