"""Minimum-norm distances beside those of adv-lib, torchattacks and Foolbox: who comes nearer, for how many passes?

    python -m benchmarks.bench_peers [--nets NAME ...] [--norms 2 inf] [--images 100] [--skip 100]

Every attack's images go through the same verification and the same bisection toward the input. The reference is the
per-sample minimum over the peers; ratios are to it, so below 1 where the package is nearer than all of them. The
settings of "fast" and "thorough" were chosen on the first hundred images of the test sets: the next are measured.
The peers come with ``pip install 'captum-alignment[peers]'``; Brendel and Bethge's attack takes part where numba is.
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


def peers(norm: float, scale: float) -> dict[str, Peer]:
    """The peers' attacks; ``scale`` is the median distance of "fast", from which two of them take a first step."""
    from adv_lib import attacks as al  # noqa: PLC0415 - optional
    from adv_lib.attacks.auto_pgd import minimal_apgd  # noqa: PLC0415
    from adv_lib.attacks.superdeepfool import sdf  # noqa: PLC0415
    from adv_lib.attacks.trust_region import tr  # noqa: PLC0415

    def apgd(model: Any, x: Tensor, y: Tensor) -> Tensor:
        options = {"norm": norm, "max_eps": 4 * scale, "targeted_version": True, "num_targets": 9}
        return minimal_apgd(model, x, y, binary_search_steps=10, n_iter=40, **options)

    def alma(distance: float) -> Peer:
        return lambda m, x, y: al.alma(m, x, y, num_steps=1000, init_lr_distance=distance)

    def carlini_wagner(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return al.carlini_wagner_l2(model, x, y, binary_search_steps=9, max_iterations=1000, initial_const=0.1)

    found: dict[str, Peer] = {
        "adv-lib PDPGD 1000": lambda m, x, y: al.pdpgd(m, x, y, norm=norm, num_steps=1000),
        "adv-lib FAB-T 9 x 100": lambda m, x, y: al.fab(m, x, y, norm=norm, restarts=9, targeted_restarts=True),
        "adv-lib APGD-T bisected": apgd,
        "adv-lib FMN 1000": lambda m, x, y: al.fmn(m, x, y, norm=norm, steps=1000),
        "adv-lib trust region 1000": lambda m, x, y: tr(m, x, y, p=norm, iter=1000, adaptive=True, worst_case=True),
        "Foolbox PGD 17 radii": foolbox_pgd(norm, scale),
    }
    if norm == 2:
        found |= {
            "adv-lib ALMA 1000": alma(scale),
            "adv-lib ALMA 1000, from farther": alma(3 * scale),
            "adv-lib PDGD 1000": lambda m, x, y: al.pdgd(m, x, y, num_steps=1000),
            "adv-lib DDN 1000": lambda m, x, y: al.ddn(m, x, y, steps=1000, levels=None),
            "adv-lib DDN-T 9 x 300": targeted(
                2, lambda m, x, goal: al.ddn(m, x, goal, targeted=True, steps=300, levels=None)
            ),
            "adv-lib SuperDeepFool": lambda m, x, y: sdf(m, x, y),
            "adv-lib C&W 9 x 1000": carlini_wagner,
        }
    else:
        found["adv-lib FMN-T 9 x 300"] = targeted(
            norm, lambda m, x, goal: al.fmn(m, x, goal, norm=norm, targeted=True, steps=300)
        )
    return found | torchattacks(norm) | foolboxes(norm)


def torchattacks(norm: float) -> dict[str, Peer]:
    import torchattacks as ta  # noqa: PLC0415 - optional

    def cw(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return ta.CW(model, c=1, steps=1000, lr=0.01)(x, y)

    def deepfool(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return ta.DeepFool(model, steps=100)(x, y)

    return {"torchattacks C&W 1000": cw, "torchattacks DeepFool": deepfool} if norm == 2 else {}


def foolboxes(norm: float) -> dict[str, Peer]:
    def run(attack: foolbox.Attack) -> Peer:
        return lambda m, x, y: attack(wrapped(m), x, y, epsilons=None)[0]

    found: dict[str, Peer] = {"Foolbox DDN 100": run(foolbox.attacks.DDNAttack(steps=100))} if norm == 2 else {}
    if importlib.util.find_spec("numba"):
        two, inf = foolbox.attacks.L2BrendelBethgeAttack, foolbox.attacks.LinfinityBrendelBethgeAttack
        found["Foolbox Brendel-Bethge"] = run((two if norm == 2 else inf)(steps=500))
    return found


def wrapped(model: Any) -> foolbox.PyTorchModel:
    return foolbox.PyTorchModel(model, bounds=(0, 1), device=DEVICE)


def foolbox_pgd(norm: float, scale: float) -> Peer:
    """Projected gradient descent at radii around ``scale``; the smallest that succeeds."""
    attack = (foolbox.attacks.L2PGD if norm == 2 else foolbox.attacks.LinfPGD)(steps=40)
    radii = [scale * 2 ** (step / 4) for step in range(-8, 9)]

    def run(model: Any, x: Tensor, y: Tensor) -> Tensor:
        _, clipped, success = attack(wrapped(model), x, y, epsilons=radii)
        first = success.float().argmax(0).tolist()  # 0 where none does: verification finds that it is no adversarial
        return torch.stack([clipped[radius][i] for i, radius in enumerate(first)])

    return run


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
    for name, attack in theirs.items():
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
    missing = [name for name in ("adv_lib", "torchattacks") if importlib.util.find_spec(name) is None]
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
