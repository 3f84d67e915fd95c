"""Shared inputs: real data and networks where they are at hand, and what was skipped without them."""

import importlib.util
import os
from pathlib import Path

import hypothesis
import pytest
import torch

# No test asserts a time: on a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SHARED = Path(os.environ.get("CAPTUM_ALIGNMENT_SHARED", "../shared")).resolve()
_NO_DATA = f"no real data at {SHARED} (set CAPTUM_ALIGNMENT_SHARED)"

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers, and what they start, share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    """The folder with real data and networks; the test is skipped, and counted, where it is absent."""
    if not (SHARED / "models" / "zoo.py").is_file():
        pytest.skip(_NO_DATA)
    return SHARED


@pytest.fixture
def zoo(shared):
    """``zoo.load(name)``: the pretrained networks, imported as a user's own model file."""
    spec = importlib.util.spec_from_file_location("zoo", shared / "models" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if _NO_DATA in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests skipped: {_NO_DATA}", yellow=True)


@pytest.fixture(scope="session")
def _mnist_images():
    from torchvision.datasets import MNIST

    data = MNIST(SHARED / "data", train=False)
    return data.data.unsqueeze(1).float() / 255, data.targets


@pytest.fixture
def mnist(shared, request):
    """MNIST's test images (10000, 1, 28, 28) in [0, 1] and their labels, read by torchvision."""
    return request.getfixturevalue("_mnist_images")


@pytest.fixture
def photographs(shared):
    """The 20 photographs (20, 3, 227, 227) in [0, 1]: shorter side 256, centre crop 227."""
    from PIL import Image
    from torchvision.transforms import v2

    transform = v2.Compose(
        [v2.Resize(256), v2.CenterCrop(227), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    files = sorted((shared / "data" / "imagenet20").glob("*.jpg"))
    return torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
