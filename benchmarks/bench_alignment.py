"""What does `alignment` cost beside the Captum call that made the attributions?

Goal: under 0.2 % of the time of `Saliency` on a CNN, under 60 µs on a tiny net.
"""

import torch
import torchvision
from captum.attr import Saliency
from torch import nn

from benchmarks._timing import DEVICE, alternate, machine, table
from captum_alignment import alignment

CASES = {
    "resnet18, 16 x 3 x 224 x 224": (lambda: torchvision.models.resnet18(num_classes=10), (16, 3, 224, 224), 5),
    "resnet18, 64 x 3 x 32 x 32": (lambda: torchvision.models.resnet18(num_classes=10), (64, 3, 32, 32), 11),
    "MLP, 32 x 64": (lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), (32, 64), 201),
}


def main():
    rows = []
    for name, (make, shape, rounds) in CASES.items():
        net = make().eval().to(DEVICE)
        x = torch.rand(shape, device=DEVICE, requires_grad=True)
        saliency = Saliency(net)
        maps = saliency.attribute(x, target=0, abs=False)
        images = x.detach()

        def attribute(saliency=saliency, x=x):
            saliency.attribute(x, target=0, abs=False)

        def align(images=images, maps=maps):
            for _ in range(10):
                alignment(images, maps)

        times = alternate({"saliency": attribute, "alignment": align}, rounds)
        saliency_ms, alignment_us = 1e3 * times["saliency"], 1e5 * times["alignment"]
        rows.append([name, saliency_ms, alignment_us, f"{alignment_us / saliency_ms / 10:.3f} %"])
    print(f"## alignment beside the Saliency call that made the map ({machine()})\n")
    table(["net and input", "Saliency ms", "alignment µs", "share"], rows)


if __name__ == "__main__":
    main()
