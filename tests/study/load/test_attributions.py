import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from captum_alignment.study import remove_and_retrain
from captum_alignment.study.load import BUILT_IN, resolve_methods
from tests.study.roar.known import CLASSES, SIZE
from tests.test_examples import ROOT

IMAGES, TARGETS = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(4) % CLASSES


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_one_has_a_map_of_its_own_for_each_image(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (SIZE - 2) ** 2, CLASSES)).eval()
    found = resolve_methods((name,), net, (0, 1))[name](IMAGES.clone().requires_grad_(), TARGETS).detach()
    assert found.shape == IMAGES.shape
    assert found.isfinite().all()
    assert not torch.equal(found[0], found[1])


def test_texts_name_every_built_in_one():
    row = next(line for line in (ROOT / "docs" / "roar.md").read_text("utf-8").splitlines() if "`--methods`" in line)
    assert row.count("`") == 2 + 2 * len(BUILT_IN)
    for name in BUILT_IN:
        assert f"`{name}`" in row
        assert name in (remove_and_retrain.__doc__ or "")


def test_smoothgrad_of_a_linear_network_is_its_saliency(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, CLASSES))
    found = resolve_methods(("smoothgrad", "saliency", "integrated-gradients"), net, (0, 1))
    images, targets = IMAGES.clone().requires_grad_(), TARGETS
    torch.testing.assert_close(found["smoothgrad"](images, targets), found["saliency"](images, targets))
    expected = images.detach() * found["saliency"](images, targets)
    torch.testing.assert_close(found["integrated-gradients"](images, targets).float(), expected)


def test_sobel_is_that_of_scipy():
    images = torch.rand(3, 2, 7, 6, dtype=torch.float64)
    channels = images.numpy().reshape(-1, 7, 6)
    expected = [np.hypot(*(ndimage.sobel(c, axis=axis, mode="nearest") for axis in (0, 1))) for c in channels]
    torch.testing.assert_close(
        BUILT_IN["sobel"](None, (0, 1))(images, torch.zeros(3)), torch.from_numpy(np.stack(expected)).view_as(images)
    )
