"""The nearest of K rivals: ours against the loop over classes, `is_grads_batched` and `jacrev`.

Goal at K = 1000 in l_2: the same minima, at least 20 times faster than the loop, at most 50 model passes on average.
"""

import math
import resource

import torch
import torchvision
from torch import nn

from benchmarks._timing import DEVICE, machine, seconds, table
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
    rows = []
    for k in (10, 100, 1000):
        torch.manual_seed(0)
        net, x = small_net(k), torch.rand(4, 3, 32, 32, device=DEVICE)
        ways = {
            "captum-alignment": lambda net=net, x=x: LinearizedRobustness(net).robustness(x),
            "loop": lambda net=net, x=x: loop_in_little_memory(net, x),
            "is_grads_batched": lambda net=net, x=x: minimum(*gradients_by_loop(net, x, batched=True)),
            "jacrev": lambda net=net, x=x: minimum(*gradients_by_jacrev(net, x)),
        }
        passes = linear_analysis(net, x).model_passes.double().mean().item()
        times = {name: min(seconds(way) for _ in range(2)) for name, way in ways.items()}
        exact = loop_in_little_memory(net, x)
        error = ((ways["captum-alignment"]() - exact).abs() / exact).max().item()
        rows.append(
            [k, *(f"{1e3 * t:.0f}" for t in times.values()), times["loop"] / times["captum-alignment"], passes, error]
        )
    table(
        ["K", "ours ms", "loop ms", "is_grads_batched ms", "jacrev ms", "loop / ours", "passes", "largest error"], rows
    )


def deep(name, net, x, loop_images=1):
    """Ours on all images, the loop on a few; both per image."""
    result = linear_analysis(net, x)
    passes = result.model_passes.double()
    ours = min(seconds(lambda: LinearizedRobustness(net).robustness(x)) for _ in range(2)) / len(x)
    exact = []
    loop = seconds(lambda: exact.append(loop_in_little_memory(net, x[:loop_images]))) / loop_images
    error = (result.linearized_robustness[:loop_images] - exact[0]).abs().max().item()
    return [name, f"{len(x)}", ours, loop, loop / ours, passes.mean().item(), passes.max().item(), error]


def large():
    print("## K = 1000, seconds per image\n")
    rows = []
    if available():
        rows.append(deep("imagenet_squeezenet, 227 px", network("imagenet_squeezenet"), images("imagenet", 20)))
    torch.manual_seed(0)
    net = torchvision.models.resnet18().eval().to(DEVICE)
    x = images("imagenet", 4)[:, :, :224, :224] if available() else torch.rand(4, 3, 224, 224, device=DEVICE)
    rows.append(deep("resnet18 untrained, 224 px", net, x))
    table(["net", "images", "ours s", "loop s", "loop / ours", "passes", "most", "largest error"], rows)


def growth():
    print("## Growth: ms for all quantities of `linear_analysis`, K = 10\n")
    torch.manual_seed(0)
    net, rows = small_net(10), []
    for n in (1, 8, 64, 512):
        x = torch.rand(n, 3, 32, 32, device=DEVICE)
        forward = min(seconds(lambda net=net, x=x: net(x)) for _ in range(3))
        ours = min(seconds(lambda net=net, x=x: linear_analysis(net, x)) for _ in range(3))
        parts = min(seconds(lambda net=net, x=x: linear_analysis(net, x, internal_batch_size=64)) for _ in range(3))
        rows.append([n, 1e3 * forward, 1e3 * ours, ours / forward, 1e3 * parts])
    table(["N", "forward", "all quantities", "ratio", "in batches of 64"], rows)


def main():
    print(f"# Nearest rivals ({machine()})\n")
    by_classes()
    growth()
    large()
    if DEVICE == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    else:
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
