"""The portfolios against Foolbox's attacks: how near, how fast?

The reference is the per-sample minimum of C&W (9 searches of 1000 steps), DDN(1000) and DDN(300) targeted at
every other class; in l_inf of three restarts of PGD(100), bisected over epsilon. Goals: "thorough" at most 1.01 of it
at 1/20 of the time of C&W; "fast" within 2 % of "thorough" on natural nets and 12 % on robust ones, at a third of its
time. The portfolios' settings were chosen on the first hundred images, so these are the hundred after them.
With the argument ``--full`` it takes all networks (half an hour on a CPU), else the smallest.
"""

import math
import sys

import foolbox
import torch
from foolbox import attacks as fb
from torch import Tensor

from benchmarks._timing import DEVICE, counted, effort, machine, table
from benchmarks._zoo import available, images, network
from captum_alignment import adversarial_distance

FULL = ("mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry", "cifar_resnet20")
SKIP, N = 100, 100
HEADER = (
    "net, attacks; median; reference; of medians; median ratio; mean ratio; of medians, / thorough; "
    "median ratio to thorough; passes; s; time / thorough; time of {} / ours"
)


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


def median(values: Tensor) -> float:
    return values.quantile(0.5).item()  # torch's own takes the lower one of the two in the middle


def main():
    if not available():
        print("bench_portfolio needs the pretrained networks (CAPTUM_ALIGNMENT_SHARED)")
        return
    print(f"# Portfolios ({machine()})\n")
    for norm, references in REFERENCES.items():
        first, rows = next(iter(references)), []
        for name in FULL if "--full" in sys.argv else FULL[:1]:
            net, x = network(name), images(name, SKIP + N)[SKIP:]
            times, distances, passes = {}, {}, {}
            for label, attacks in {**references, "fast": "fast", "thorough": "thorough"}.items():

                def run(label=label, attacks=attacks, net=net, x=x, norm=norm, found=distances):
                    found[label] = adversarial_distance(net, x, attacks=attacks, norm=norm).distance

                with counted(net) as count:
                    times[label] = effort(run)
                passes[label] = count.samples / N
            best = torch.stack([distances[label] for label in references]).amin(0)
            for label in ("fast", "thorough"):
                ours, thorough = distances[label], distances["thorough"]
                rows.append(
                    [f"{name}, {label}", median(ours), median(best), median(ours) / median(best), median(ours / best),
                     (ours / best).mean().item(), median(ours) / median(thorough), median(ours / thorough),
                     passes[label], times[label], times[label] / times["thorough"], times[first] / times[label]]
                )  # fmt: skip
        print(f"## l_{norm}, {N} images\n")
        table(HEADER.format(first).split("; "), rows)


if __name__ == "__main__":
    main()
