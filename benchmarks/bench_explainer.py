"""What does one map cost: generated in one forward pass, or by Captum's methods?

Zeng et al. (2021) state for a ResNet-18 on CIFAR-10 and a CPU: theirs 9 ms, saliency 19, IG 1385, occlusion 1875.
"""

import torch
import torchvision
from captum.attr import IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from torch import nn

from benchmarks._timing import DEVICE, alternate, machine, table
from captum_alignment.attr import GeneratedAttribution
from captum_alignment.training import Explainer

#: Size of the image, strides that enlarge layer4's features to it, window and stride of the occlusion, rounds.
CASES = {
    "3 x 32 x 32": (32, (2, 2, 2, 1), 3, 1, 3),
    "3 x 224 x 224": (224, (2, 2, 2, 2), 32, 16, 3),
}


def resnet18(size):
    """ResNet-18; for small images with the stem that keeps their size, as usual on CIFAR-10."""
    net = torchvision.models.resnet18(num_classes=10)
    if size <= 64:
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net.eval().to(DEVICE)


def main():
    rows = []
    for name, (size, strides, window, step, rounds) in CASES.items():
        net = resnet18(size)
        explainer = Explainer(512, 3, strides=strides).eval().to(DEVICE)
        x = torch.rand(1, 3, size, size, device=DEVICE)
        leaf = x.clone().requires_grad_()
        generated, saliency = GeneratedAttribution(net, explainer, "layer4"), Saliency(net)
        occlusion, integrated, tunnel = Occlusion(net), IntegratedGradients(net), NoiseTunnel(saliency)
        shape, stride = (3, window, window), (3, step, step)

        def forward(net=net, x=x):
            with torch.no_grad():
                net(x)

        methods = {
            "forward pass": forward,
            "generated": lambda m=generated, x=x: m.attribute(x),
            "Saliency": lambda m=saliency, x=leaf: m.attribute(x, target=0, abs=False),
            "SmoothGrad, 50": lambda m=tunnel, x=leaf: m.attribute(
                x, target=0, abs=False, nt_samples=50, nt_samples_batch_size=10
            ),
            "IG, 50 steps": lambda m=integrated, x=x: m.attribute(x, target=0, n_steps=50, internal_batch_size=16),
            "Occlusion": lambda m=occlusion, x=x, shape=shape, stride=stride: m.attribute(
                x, shape, strides=stride, target=0, perturbations_per_eval=16
            ),
        }
        times = alternate(methods, rounds)
        cost = times["generated"]
        rows += [[name, method, 1e3 * t, f"{t / cost:.2f}"] for method, t in times.items()]
    print(f"## one map of a ResNet-18 ({machine()})\n")
    table(["input", "method", "ms per map", "over generated"], rows)


if __name__ == "__main__":
    main()
