"""`robust.DeepFool` against Foolbox's own: the same iterates at what cost?

Goal: at least 4 times faster on deep nets, at least 2.5 times on the small ones, also on few images; distances equal in
float64 to 1e-6. The limit is one forward and one backward pass of every sample in each of its steps.
"""

import math
from statistics import median

import foolbox
import torch
from foolbox import attacks as fb

from benchmarks._timing import DEVICE, counted, effort, machine, table
from benchmarks._zoo import available, images, network
from captum_alignment.robust import DeepFool

PEERS = {2: fb.L2DeepFoolAttack, math.inf: fb.LinfDeepFoolAttack}
#: Network, images, rounds in turns, and images whose distances are compared in float64.
CASES = [
    *((name, n, 5, n) for name in ("mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry") for n in (4, 20)),
    ("mnist_mlp", 100, 2, 100),
    ("mnist_cnn", 100, 2, 50),
    ("mnist_kw", 100, 2, 50),
    ("mnist_madry", 100, 2, 50),
    ("cifar_resnet20", 50, 1, 20),
    ("imagenet_squeezenet", 4, 1, 2),
]


def main():
    if not available():
        print("bench_deepfool needs the pretrained networks (CAPTUM_ALIGNMENT_SHARED)")
        return
    torch.set_num_threads(1)
    rows = []
    for name, n, rounds, few in CASES:
        x = images(name, n)
        for norm, peer in PEERS.items():
            net = network(name)
            model = foolbox.PyTorchModel(net, bounds=(0, 1), device=DEVICE)
            label = net(x).argmax(1)
            attacks = {"ours": DeepFool(norm=norm), "foolbox": peer(steps=50, candidates=10)}
            times, forwards = {who: [] for who in attacks}, {}
            for turn in range(rounds + 1):
                for who, attack in attacks.items():
                    here = slice(None) if turn else slice(2)  # the first turn warms up
                    with counted(net) as passes:
                        time = effort(lambda a=attack, m=model, x=x[here], y=label[here]: a(m, x, y, epsilons=None))
                    if turn:
                        times[who].append(time)
                        forwards[who] = passes.samples / n
            net, start = network(name, torch.float64), x[:few].double()
            model, label = foolbox.PyTorchModel(net, bounds=(0, 1), device=DEVICE), net(start).argmax(1)
            ours, theirs = (
                (attack(model, start, label, epsilons=None)[0] - start).flatten(1).norm(norm, dim=1)
                for attack in attacks.values()
            )
            error = ((ours - theirs).abs() / theirs).max().item()
            ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["foolbox"], strict=True)]
            spread = f"{min(ratios):.3g} to {max(ratios):.3g}"
            seconds = [median(values) for values in times.values()]
            rows.append([f"{name}, l_{norm}", n, *seconds, median(ratios), spread, *forwards.values(), error])
    print(f"## DeepFool ({machine()})\n")
    header = ["net", "images", "ours s", "Foolbox s", "Foolbox / ours", "rounds", "forwards / image", "Foolbox's"]
    table([*header, "error (float64)"], rows)


if __name__ == "__main__":
    main()
