"""`robust.DeepFool` against Foolbox's own: the same iterates at what cost?

Goal: at least 4 times faster on deep nets, at least 2.5 times on the small ones, distances equal in float64 to 1e-6.
"""

import math

import foolbox
import torch
from foolbox import attacks as fb

from benchmarks._timing import DEVICE, counted, machine, seconds, table
from benchmarks._zoo import available, images, network
from captum_alignment.robust import DeepFool

PEERS = {2: fb.L2DeepFoolAttack, math.inf: fb.LinfDeepFoolAttack}
CASES = {
    "mnist_mlp": 100,
    "mnist_cnn": 100,
    "mnist_kw": 100,
    "mnist_madry": 100,
    "cifar_resnet20": 20,
    "imagenet_squeezenet": 2,
}


def main():
    if not available():
        print("bench_deepfool needs the pretrained networks (CAPTUM_ALIGNMENT_SHARED)")
        return
    rows = []
    for name, n in CASES.items():
        x = images(name, n)
        for norm, peer in PEERS.items():
            net = network(name)
            model = foolbox.PyTorchModel(net, bounds=(0, 1), device=DEVICE)
            label = net(x).argmax(1)
            attacks = {"ours": DeepFool(norm=norm), "foolbox": peer(steps=50, candidates=10)}
            times, samples = {"ours": [], "foolbox": []}, {}
            for _ in range(3 if n > 2 else 1):
                for who, attack in attacks.items():
                    with counted(net) as passes:
                        times[who].append(seconds(lambda a=attack, m=model, x=x, y=label: a(m, x, y, epsilons=None)))
                    samples[who] = passes.samples / n
            net, few = network(name, torch.float64), x[: min(n, 20)].double()
            model, label = foolbox.PyTorchModel(net, bounds=(0, 1), device=DEVICE), net(few).argmax(1)
            ours, theirs = (
                (attack(model, few, label, epsilons=None)[0] - few).flatten(1).norm(norm, dim=1)
                for attack in attacks.values()
            )
            error = ((ours - theirs).abs() / theirs).max().item()
            speedup = min(times["foolbox"]) / min(times["ours"])
            rows.append(
                [
                    f"{name}, l_{norm}",
                    n,
                    min(times["ours"]),
                    min(times["foolbox"]),
                    speedup,
                    samples["ours"],
                    samples["foolbox"],
                    error,
                ]
            )
    print(f"## DeepFool ({machine()})\n")
    table(
        ["net", "images", "ours s", "Foolbox s", "Foolbox / ours", "forwards / image", "Foolbox's", "error (float64)"],
        rows,
    )


if __name__ == "__main__":
    main()
