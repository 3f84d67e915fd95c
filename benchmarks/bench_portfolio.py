"""The portfolios against Foolbox's attacks: how near, how fast?

The reference is the per-sample minimum of C&W (9 searches of 1000 steps), DDN(1000) and DDN(300) targeted at
every other class; in l_inf of three restarts of PGD(100), bisected over epsilon. Goals: "thorough" at most 1.01 of it
at 1/20 of the time of C&W; "fast" within 2 % of "thorough" on natural nets and 12 % on robust ones, at a third of its
time.
With the argument ``--full`` it takes all networks (half an hour on a CPU), else the smallest.
"""

import math
import sys

import foolbox
import torch
from foolbox import attacks as fb

from benchmarks._timing import DEVICE, machine, seconds, table
from benchmarks._zoo import available, images, network
from captum_alignment import adversarial_distance

FULL = {"mnist_mlp": 100, "mnist_cnn": 100, "mnist_kw": 100, "mnist_madry": 100, "cifar_resnet20": 24}
SHORT = {"mnist_mlp": 50}


def targeted_ddn(rank):
    """DDN(300) at the class of that rank among the others, as a callable attack."""

    def attack(model, x, y):
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=DEVICE)
        with torch.no_grad():
            order = model(x).scatter(1, y.unsqueeze(1), -math.inf).argsort(1, descending=True)
        goal = foolbox.criteria.TargetedMisclassification(order[:, rank])
        return fb.DDNAttack(steps=300)(wrapped, x, goal, epsilons=None)[0]

    return attack


REFERENCES = {
    2: {
        "C&W": {"cw": fb.L2CarliniWagnerAttack(binary_search_steps=9, steps=1000)},
        "DDN": {"ddn": fb.DDNAttack(steps=1000)},
        "targeted DDN": {f"rank {k}": targeted_ddn(k) for k in range(9)},
    },
    math.inf: {"PGD": {"pgd": fb.LinfPGD(steps=100).repeat(3)}},
}


def main():
    if not available():
        print("bench_portfolio needs the pretrained networks (CAPTUM_ALIGNMENT_SHARED)")
        return
    print(f"# Portfolios ({machine()})\n")
    for norm, references in REFERENCES.items():
        rows = []
        for name, n in (FULL if "--full" in sys.argv else SHORT).items():
            net, x = network(name), images(name, n)
            times, distances = {}, {}
            for label, attacks in {**references, "fast": "fast", "thorough": "thorough"}.items():
                found = []

                def run(attacks=attacks, found=found, net=net, x=x, norm=norm):
                    found.append(adversarial_distance(net, x, attacks=attacks, norm=norm).distance)

                times[label] = seconds(run)
                distances[label] = found[0]
            best = torch.stack([distances[label] for label in references]).amin(0)
            first = next(iter(references))
            for label in ("fast", "thorough"):
                ratio = distances[label] / best
                rows.append(
                    [f"{name}, {label}", n, distances[label].median().item(), best.median().item(),
                     (distances[label].median() / best.median()).item(), ratio.median().item(), ratio.mean().item(),
                     times[label], times[first] / times[label]]
                )  # fmt: skip
        header = [
            "net",
            "images",
            "median",
            "reference",
            "of medians",
            "median ratio",
            "mean ratio",
            "s",
            f"time of {first} / ours",
        ]
        print(f"## l_{norm}\n")
        table(header, rows)


if __name__ == "__main__":
    main()
