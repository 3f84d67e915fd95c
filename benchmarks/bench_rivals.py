"""The nearest of K rivals: ours against the loop over classes, `is_grads_batched` and `jacrev`.

    python -m benchmarks.bench_rivals [by_classes] [growth] [large]

Goal at K = 1000 in l_2: the same minima, at least 35 times faster than the loop, at most 25 model passes on average.
"""

import math
import resource
import sys

import torch
import torchvision
from torch import nn

from benchmarks._timing import DEVICE, effort, exponent, machine, table
from benchmarks._zoo import available, images, network
from captum_alignment import LinearizedRobustness, linear_analysis


def gradients_by_loop(net, x, batched):
    """Jacobian (K, N, ...) of the scores by one backward pass per class, or by one vmapped one."""
    x = x.detach().requires_grad_()
    scores = net(x)
    seeds = torch.eye(scores.shape[1], device=x.device).unsqueeze(1).expand(-1, len(x), -1)
    if batched:
        (jacobian,) = torch.autograd.grad(scores, x, seeds, is_grads_batched=True)
    else:
        jacobian = torch.stack([torch.autograd.grad(scores, x, seed, retain_graph=True)[0] for seed in seeds])
    return scores.detach(), jacobian


def gradients_by_jacrev(net, x):
    jacobian = torch.func.jacrev(lambda x: net(x).sum(0))(x)
    return net(x).detach(), jacobian


def minimum(scores, jacobian):
    target = scores.argmax(1)
    rows = torch.arange(len(scores), device=scores.device)
    gaps = (scores[rows, target].unsqueeze(1) - scores).scatter(1, target.unsqueeze(1), math.inf)
    norms = (jacobian[target, rows].unsqueeze(0) - jacobian).flatten(2).norm(dim=2).T
    return torch.where(gaps == 0, 0, gaps / norms).amin(1)


def loop_in_little_memory(net, x):
    """The loop over classes that keeps only the running minimum: what a careful user writes."""
    x = x.detach().requires_grad_()
    scores = net(x)
    target = scores.argmax(1)
    rows = torch.arange(len(x), device=x.device)
    best = torch.full((len(x),), math.inf, device=x.device)
    for j in range(scores.shape[1]):
        margin = scores[rows, target] - scores[:, j]
        (gradient,) = torch.autograd.grad(margin.sum(), x, retain_graph=True)
        ratio = margin.detach() / gradient.flatten(1).norm(dim=1)
        best = torch.where((target != j) & ~ratio.isnan(), torch.minimum(best, ratio), best)
    return best


def small_net(k):
    layers, channels = [], 3
    for width in (32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, k)).eval().to(DEVICE)


def by_classes():
    print("## Linearized robustness of 4 images of 32 pixels as the number of classes grows\n")
    rows, costs, sizes = [], {"captum-alignment": [], "loop": []}, (10, 100, 1000)
    for k in sizes:
        torch.manual_seed(0)
        net, x = small_net(k), torch.rand(4, 3, 32, 32, device=DEVICE)
        ways = {
            "captum-alignment": lambda net=net, x=x: LinearizedRobustness(net).robustness(x),
            "loop": lambda net=net, x=x: loop_in_little_memory(net, x),
            "is_grads_batched": lambda net=net, x=x: minimum(*gradients_by_loop(net, x, batched=True)),
            "jacrev": lambda net=net, x=x: minimum(*gradients_by_jacrev(net, x)),
        }
        passes = linear_analysis(net, x).model_passes.double().mean().item()
        times = {name: min(effort(way) for _ in range(2)) for name, way in ways.items()}
        for name, found in costs.items():
            found.append(times[name])
        exact = loop_in_little_memory(net, x)
        error = ((ways["captum-alignment"]() - exact).abs() / exact).max().item()
        ms = (f"{1e3 * t:.0f}" for t in times.values())
        rows.append([k, *ms, times["loop"] / times["captum-alignment"], passes, error])
    names = ["ours ms", "loop ms", "is_grads_batched ms", "jacrev ms"]
    table(["K", *names, "loop / ours", "passes", "largest error"], rows)
    fitted = ", ".join(f"{name} K^{exponent(sizes, found):.2f}" for name, found in costs.items())
    print(f"Fitted cost: {fitted}.\n")


def by_size(what, cases):
    """All quantities of `linear_analysis`, K = 10, in units of its floor: a forward pass and ten backward passes."""
    rows, ours, sizes = [], [], []
    for size, net, x in cases:

        def floor(net=net, x=x):
            leaf = x.clone().requires_grad_()
            scores = net(leaf)
            for k in range(scores.shape[1]):
                torch.autograd.grad(scores[:, k].sum(), leaf, retain_graph=True)

        ways = {"floor": floor, "ours": lambda net=net, x=x: linear_analysis(net, x)}
        times = {name: min(effort(way) for _ in range(3)) for name, way in ways.items()}
        sizes.append(size)
        ours.append(times["ours"])
        rows.append([size, 1e3 * times["floor"], 1e3 * times["ours"], times["ours"] / times["floor"]])
    table([what, "floor ms", "ours ms", "/ floor"], rows)
    print(f"Fitted cost: {what}^{exponent(sizes, ours):.2f}.\n")


def growth():
    print("## Growth of all quantities of `linear_analysis`, K = 10: samples N, then features D\n")
    torch.manual_seed(0)
    net = small_net(10)
    by_size("N", [(n, net, torch.rand(n, 3, 32, 32, device=DEVICE)) for n in (8, 32, 128)])
    pooled = nn.Sequential(*net[:12], nn.AdaptiveAvgPool2d(4), *net[12:])
    cases = [(3 * side**2, pooled, torch.rand(8, 3, side, side, device=DEVICE)) for side in (32, 64, 128)]
    by_size("D", cases)


def deep(name, net, x, norm):
    """All of `linear_analysis` against 1000 times the mean of ten backward passes of the same images."""
    linear_analysis(net, x[:1], norm=norm)
    graph = x.clone().requires_grad_()
    scores, found, backward = net(graph), [], []
    total = effort(lambda: found.append(linear_analysis(net, x, norm=norm)))
    for j in range(10):
        chosen = scores[:, j].sum()
        backward.append(effort(lambda c=chosen: torch.autograd.grad(c, graph, retain_graph=True)))
    passes = found[0].model_passes.double()
    one = sum(backward) / len(backward)
    bound = passes.mean().item() * one / total
    return [name, len(x), total / len(x), passes.mean().item(), passes.max().item(), 1000 * one / total, f"{bound:.0%}"]


def large():
    print("## K = 1000: seconds an image, against the loop over the classes\n")
    rows = []
    if available():
        net, x = network("imagenet_squeezenet"), images("imagenet", 20)
        rows.append(deep("imagenet_squeezenet, 227 px, l_2", net, x, 2))
        rows.append(deep("imagenet_squeezenet, 227 px, l_inf", net, x[:10], math.inf))
    torch.manual_seed(0)
    net = torchvision.models.resnet18().eval().to(DEVICE)
    x = images("imagenet", 4)[:, :, :224, :224] if available() else torch.rand(4, 3, 224, 224, device=DEVICE)
    rows.append(deep("resnet18 untrained, 224 px, l_2", net, x, 2))
    table(["net", "images", "s", "passes", "most", "loop / ours", "passes as backward passes"], rows)


def main():
    torch.set_num_threads(1)
    print(f"# Nearest rivals ({machine()}, processor time)\n")
    for part in (by_classes, growth, large):
        if not sys.argv[1:] or part.__name__ in sys.argv[1:]:
            part()
    if DEVICE == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    else:
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
