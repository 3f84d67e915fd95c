"""Minimum-norm distances beside those of adv-lib, torchattacks and Foolbox: who comes nearer, for how many passes?

    python -m benchmarks.bench_peers [--nets NAME ...] [--norms 2 inf] [--images 100] [--skip 100]

Every attack's images go through the same verification and the same bisection toward the input. The reference is the
per-sample minimum over fourteen of them in each norm; ratios are to it, so below 1 where the package is nearer than
all. The settings of "fast" and "thorough" were chosen on the first hundred images of the test sets: the next are
measured. The peers come with ``pip install 'captum-alignment[peers]'``.
"""

import argparse
import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any

import foolbox
import torch
from torch import Tensor

from benchmarks._timing import DEVICE, effort, machine, table
from benchmarks._zoo import available, images, network
from captum_alignment import adversarial_distance

NETS = ["mnist_mlp", "mnist_cnn", "mnist_kw", "mnist_madry", "cifar_resnet20", "cifar_madry", "cifar_kw"]
OURS = ("fast", "thorough")
HEADER = ["attack", "median", "mean ratio", "> 1 %", "> 5 %", "> 20 %", "worst", "found", "forward", "backward", "s"]
Peer = Callable[[Any, Tensor, Tensor], Tensor]


def targeted(norm: float, attack: Callable[[Any, Tensor, Tensor], Tensor]) -> Peer:
    """The nearest of ``attack(model, x, goal)`` over all other classes."""

    def run(model: Any, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            others = model(x).scatter(1, y.unsqueeze(1), -math.inf).argsort(1, descending=True)[:, :-1]
        best, points = torch.full((len(x),), math.inf, device=x.device), x.clone()
        for goal in others.unbind(1):
            found = attack(model, x, goal).detach()
            with torch.no_grad():
                success = model(found).argmax(1) != y
            length = torch.where(success, (found - x).flatten(1).norm(norm, dim=1), math.inf)
            nearer = length < best
            best[nearer], points[nearer] = length[nearer], found[nearer]
        return points

    return run


def bisected(attack: Callable[..., Tensor], largest: float) -> Peer:
    """``attack(model, x, y, epsilons)`` at the smallest epsilon of ten bisections that succeeds, per sample."""

    def run(model: Any, x: Tensor, y: Tensor) -> Tensor:
        low, high, points = x.new_zeros(len(x)), x.new_full((len(x),), 2 * largest), x.clone()
        for _ in range(10):
            middle = (low + high) / 2
            found = attack(model, x, y, middle)
            with torch.no_grad():
                success = model(found).argmax(1) != y
            points[success] = found[success]
            low, high = torch.where(success, low, middle), torch.where(success, middle, high)
        return points

    return run


def peers(norm: float, scale: float) -> dict[str, Peer]:
    """Fourteen independent attacks; ``scale`` is the median distance of "fast", by which some set their first step."""
    from adv_lib import attacks as al  # noqa: PLC0415 - optional

    def apgd(**options: Any) -> Peer:
        return bisected(lambda m, x, y, eps: al.apgd(m, x, y, eps, norm=norm, n_iter=40, **options), 2 * scale)

    both: dict[str, Peer] = {
        "adv-lib PDPGD 1000": lambda m, x, y: al.pdpgd(m, x, y, norm=norm, num_steps=1000),
        "adv-lib FMN 1000": lambda m, x, y: al.fmn(m, x, y, norm=norm, steps=1000, α_init=1 if norm == 2 else 10),
        "adv-lib FAB-T 9 x 100": lambda m, x, y: al.fab(m, x, y, norm=norm, restarts=9, targeted_restarts=True),
        "adv-lib APGD-T bisected": bisected(
            lambda m, x, y, eps: al.apgd_targeted(m, x, y, eps, norm=norm, n_iter=40, num_targets=9), 2 * scale
        ),
        "adv-lib APGD-CE x 3 bisected": apgd(loss_function="ce", n_restarts=3),
        "adv-lib TR 1000": lambda m, x, y: al.tr(m, x, y, iter=1000, adaptive=True, p=norm, eps=scale / 100),
        "Foolbox Brendel-Bethge 250": brendel_bethge(norm),
    }
    return both | (l_2(scale, al) if norm == 2 else l_inf(scale, al, apgd))


def l_2(scale: float, al: Any) -> dict[str, Peer]:
    """Those that there are in l_2 alone."""
    return {
        "adv-lib ALMA 1000": lambda m, x, y: al.alma(m, x, y, num_steps=1000, init_lr_distance=scale),
        "adv-lib ALMA 1000, rate .1": lambda m, x, y: al.alma(m, x, y, num_steps=1000),
        "adv-lib PDGD 1000": lambda m, x, y: al.pdgd(m, x, y, num_steps=1000),
        "adv-lib DDN 1000": lambda m, x, y: al.ddn(m, x, y, steps=1000, levels=None),
        "adv-lib DDN-T 9 x 300": targeted(
            2, lambda m, x, goal: al.ddn(m, x, goal, targeted=True, steps=300, levels=None)
        ),
        "adv-lib SuperDeepFool": lambda m, x, y: al.sdf(m, x, y, steps=10, df_steps=50),
        "adv-lib C&W 9 x 1000": lambda m, x, y: al.carlini_wagner_l2(m, x, y, initial_const=0.01, max_iterations=1000),
    }


def l_inf(scale: float, al: Any, apgd: Callable[..., Peer]) -> dict[str, Peer]:
    """Those in l_inf alone, or in l_2 too weak beside the others."""

    def pgd(loss: str) -> Peer:
        return bisected(lambda m, x, y, eps: al.pgd_linf(m, x, y, eps, restarts=3, loss_function=loss), 2 * scale)

    return {
        "adv-lib FMN-T 9 x 300": targeted(
            math.inf, lambda m, x, goal: al.fmn(m, x, goal, norm=math.inf, targeted=True, steps=300, α_init=10)
        ),
        "adv-lib FAB 100": lambda m, x, y: al.fab(m, x, y, norm=math.inf),
        "adv-lib APGD-DLR x 3 bisected": apgd(n_restarts=3),
        "adv-lib PGD-CE x 3 bisected": pgd("ce"),
        "adv-lib PGD-DL x 3 bisected": pgd("dl"),
        "adv-lib TR 1000, worst case": lambda m, x, y: al.tr(
            m, x, y, iter=1000, adaptive=True, p=math.inf, eps=scale / 100, worst_case=True
        ),
        "adv-lib DeepFool": lambda m, x, y: al.df(m, x, y, norm=math.inf),
    }


def brendel_bethge(norm: float) -> Peer:
    def run(model: Any, x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=DEVICE)
        kind = foolbox.attacks.L2BrendelBethgeAttack if norm == 2 else foolbox.attacks.LinfinityBrendelBethgeAttack
        return kind(steps=250)(wrapped, x, y, epsilons=None)[0]

    return run


def small(norm: float) -> dict[str, Peer]:
    """Attacks of other libraries that people run as they are: rows of the table, not part of the reference."""
    import torchattacks as ta  # noqa: PLC0415 - optional

    def ddn(model: Any, x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=DEVICE)
        return foolbox.attacks.DDNAttack(steps=100)(wrapped, x, y, epsilons=None)[0]

    found: dict[str, Peer] = {
        "torchattacks C&W 1000": lambda m, x, y: ta.CW(m, c=1, steps=1000, lr=0.01)(x, y),
        "torchattacks DeepFool": lambda m, x, y: ta.DeepFool(m, steps=100)(x, y),
        "Foolbox DDN 100": ddn,
    }
    return found if norm == 2 else {}


def measure(net: Any, x: Tensor, norm: float) -> list[list[object]]:
    """One row for each attack."""
    found, times = {}, {}

    def run(name: str, attacks: Any) -> None:
        def call() -> None:
            found[name] = adversarial_distance(net, x, attacks=attacks, norm=norm)

        times[name] = effort(call)

    for name in OURS:
        run(name, name)
    scale = found["fast"].distance.median().item()
    theirs = peers(norm, scale)
    for name, attack in (theirs | small(norm)).items():
        run(name, {name: attack})
    best = torch.stack([found[name].distance for name in theirs]).amin(0)
    rows: list[list[object]] = []
    for name, result in found.items():
        ratio = result.distance / best
        shares = [(ratio > limit).float().mean().item() for limit in (1.01, 1.05, 1.2)]
        forward, backward = (sum(passes) for passes in zip(*result.passes.values(), strict=True))
        answered = result.distance.isfinite().float().mean().item()
        rows.append(
            [name, result.distance.quantile(0.5).item(), ratio.mean().item(), *shares, ratio.max().item(), answered,
             round(forward), round(backward), times[name]]
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--norms", nargs="+", type=float, default=[2, math.inf])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--skip", type=int, default=100)
    options = parser.parse_args()
    missing = [name for name in ("adv_lib", "torchattacks", "numba") if importlib.util.find_spec(name) is None]
    if missing or not available():
        print(f"bench_peers needs {missing or 'the pretrained networks (CAPTUM_ALIGNMENT_SHARED)'}")
        return
    warnings.filterwarnings("ignore", "no adversarial for")  # the table says so
    print(f"# Peers ({machine()})\n")
    for norm in options.norms:
        for name in options.nets:
            x = images(name, options.skip + options.images)[options.skip :]
            print(f"## {name}, l_{norm:g}, {len(x)} images\n")
            table(HEADER, measure(network(name), x, norm))


if __name__ == "__main__":
    main()
