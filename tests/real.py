"""Real networks for tests: the zoo with inputs for each, and torchvision's with randomised parameters."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import functional as transforms

ZOO = [
    *("mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry", "cifar_sgd", "cifar_madry", "cifar_kw", "cifar_resnet20"),
    "imagenet_squeezenet",
]
#: Networks of which two small images make a fast comparison; the classifier of VGG alone has 124 million parameters.
TORCHVISION = ["resnet18", "mobilenet_v2", "densenet121", pytest.param("vgg11_bn", marks=pytest.mark.slow)]


def images(shared, name, n):
    """The first ``n`` real images (N, C, H, W) in [0, 1], float64, that the zoo network ``name`` is made for."""
    if name.startswith("mnist"):
        data = torchvision.datasets.MNIST(shared / "data", train=False).data
        return data[:n].unsqueeze(1).double() / 255
    if name.startswith("cifar"):
        data = np.load(shared / "data" / "cifar10_lossless_subset.npz")["x"][:n]
        return torch.from_numpy(data).permute(0, 3, 1, 2).double() / 255
    photographs = sorted((shared / "data" / "imagenet20").glob("*.jpg"))[:n]
    whole = [transforms.pil_to_tensor(Image.open(path).convert("RGB")).double() / 255 for path in photographs]
    return torch.stack([transforms.center_crop(transforms.resize(image, [256]), [227]) for image in whole])


def randomised(name, x):
    """A torchvision network in float64 whose head, biases and batch-norm statistics are not their default zeros.

    The statistics are those of ``x``, disturbed, so that what enters still reaches the scores.
    """
    net = getattr(torchvision.models, name)(num_classes=10).double()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter_name, parameter in net.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif parameter.ndim == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(1, 3)
        if norms:
            net.train()(x)
        for norm in norms:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= 0.5 + torch.rand_like(norm.running_var)
    return net.eval()
