"""How near the certified lower bound comes to the attacks, and what it costs; the radius of the linear region.

Goals: medians of lower over upper of at least .85, .75 and .35 in l_inf on mnist_kw, mnist_madry and mnist_mlp, of .15,
.35 and .35 in l_2; mnist_kw certified at one distance in .2 s an image; l(x) of cifar_resnet20 in 1 s an image.
"""

import itertools
import math
import sys
from functools import partial

import torch

from benchmarks._timing import effort, exponent, machine, table
from benchmarks._zoo import available, images, network
from captum_alignment._core._piecewise_trace import trace
from captum_alignment.metrics import linear_region
from captum_alignment.robust import adversarial_distance, certified_distance
from captum_alignment.robust._certified_relaxation import Relaxation
from captum_alignment.robust._certified_search import Search


def brackets(n: int, names=("mnist_mlp", "mnist_kw", "mnist_madry")) -> list[list[object]]:
    rows = []
    for name in names:
        net, x = network(name), images(name, n)
        for norm in (math.inf, 2):
            upper = adversarial_distance(net, x, norm=norm, attacks="thorough").distance.double()
            for level in ("fast", "medium", "thorough") if name == "mnist_mlp" else ("fast", "medium"):
                found = []
                cost = effort(
                    lambda net=net, x=x, norm=norm, level=level, found=found: found.append(
                        certified_distance(net, x, norm=norm, bounds=(0, 1), effort=level)
                    )
                )
                counted = (upper > 0) & upper.isfinite()
                share = (found[0] / upper)[counted]
                above = int((found[0] > upper).sum())
                rows.append([name, norm, level, int(counted.sum()), f"{share.median():.3f}", above, f"{cost / n:.2f}"])
                print(*rows[-1], flush=True)
    return rows


def one_distance(n: int) -> list[list[object]]:
    """mnist_kw at l_inf .1, the distance it was trained for."""
    net, x = network("mnist_kw"), images("mnist_kw", n)
    certified = []

    def run():
        for i in range(n):
            sample = x[i : i + 1]
            graph = trace(net, (sample,))
            label = int(net(sample).argmax())
            search = Search(Relaxation(graph, (sample.double(),), math.inf, (0, 1)), label, 1024)
            certified.append(search.radius(0.1, (0, 0))[0] >= 0.1)

    cost = effort(run)
    return [["mnist_kw", f"{sum(certified)} of {n}", f"{cost / n:.3f}"]]


def regions(n: int) -> list[list[object]]:
    rows = []
    for name in ("mnist_mlp", "mnist_kw", "cifar_resnet20"):
        net, x = network(name), images(name, n)
        found = []
        cost = effort(lambda net=net, x=x, found=found: found.append(linear_region(net, x)))
        region = found[0]
        rows.append([name, n, f"{region.radius.median():.3g}", int(region.applies.sum()), f"{cost / n:.2f}"])
    return rows


def sizes() -> None:
    """Perceptrons of 64 features: the cost against units, against layers and against classes."""
    cases = {
        "units": [(units, 2, 10) for units in (64, 256, 1024)],
        "layers": [(128, layers, 10) for layers in (2, 4, 8)],
        "classes": [(128, 2, classes) for classes in (10, 100, 1000)],
    }
    rows, fits = [], []
    for varied, sized in cases.items():
        costs: dict[str, list[float]] = {"fast": [], "medium": [], "l(x)": []}
        for hidden, layers, classes in sized:
            torch.manual_seed(0)
            widths = [64, *[hidden] * layers]
            parts = [part for a, b in itertools.pairwise(widths) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
            net, x = torch.nn.Sequential(*parts, torch.nn.Linear(hidden, classes)).eval(), torch.rand(2, 64)
            for what, found in costs.items():
                call = (
                    partial(linear_region, net, x)
                    if what == "l(x)"
                    else partial(certified_distance, net, x, effort=what)
                )
                found.append(min(effort(call) for _ in range(2)) / len(x))
            rows.append([hidden * layers, layers, classes, *(f"{found[-1]:.3f}" for found in costs.values())])
        values = [case[list(cases).index(varied)] for case in sized]
        fits.append(", ".join(f"{what} {varied}^{exponent(values, found):.2f}" for what, found in costs.items()))
    table(["units", "layers", "classes", "fast, s / image", "medium, s / image", "l(x), s / image"], rows)
    print(f"Fitted cost: {'; '.join(fits)}.\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if not available():
        sys.exit("needs the pretrained networks")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(machine())
    table(["net", "certified at .1", "s / image"], one_distance(count))
    table(["net", "images", "median l(x)", "lemma 1 applies", "s / image"], regions(min(count, 5)))
    sizes()
    table(["net", "norm", "effort", "images", "lower / upper", "lower > upper", "s / image"], brackets(count))
