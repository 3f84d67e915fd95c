"""Networks and images for the benchmarks: real ones where they are at hand, torchvision's untrained ones elsewhere."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import MNIST
from torchvision.transforms import v2

from benchmarks._timing import DEVICE

SHARED = Path(os.environ.get("CAPTUM_ALIGNMENT_SHARED", "../shared"))


def available() -> bool:
    """Whether the pretrained networks are at hand."""
    return (SHARED / "models" / "zoo.py").is_file()


def network(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A pretrained network in eval mode."""
    spec = importlib.util.spec_from_file_location("zoo", SHARED / "models" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    return zoo.load(name).to(DEVICE, dtype)


def images(name: str, n: int) -> Tensor:
    """The first n test images that network ``name`` was made for, in [0, 1]."""
    if name.startswith("mnist"):
        x = MNIST(SHARED / "data", train=False).data[:n].unsqueeze(1).float() / 255
    elif name.startswith("cifar"):
        x = np.load(SHARED / "data" / "cifar10_lossless_subset.npz")["x"][:n]
        x = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    else:
        crop = v2.Compose([v2.Resize(256), v2.CenterCrop(227), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
        files = sorted((SHARED / "data" / "imagenet20").glob("*.jpg"))[:n]
        x = torch.stack([crop(Image.open(file).convert("RGB")) for file in files])
    return x.to(DEVICE)
