"""What does `suggest_weights` say on the digits, MNIST and images like CIFAR-10? ``bench_weights digits|mnist|cifar``.

A small CNN, Adam, .001, batches of 64, short fits with one seed. Each cell is accuracy and median linearized
robustness on 400 held-out images; ``<`` marks what is suggested.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import v2

from benchmarks._zoo import SHARED
from captum_alignment.training import JacobianRegularizer, LargeMargin, LocalLipschitz, suggest_weights

STEPS = {"digits": 300, "mnist": 500, "cifar": 500}
RELATIVE = (0.03, 0.1, 0.3, 1.0, 3.0)
PENALTIES = {
    "`LocalLipschitz`": lambda: LocalLipschitz(1.0),
    '`LocalLipschitz(of="score")`': lambda: LocalLipschitz(1.0, of="score"),
    "`JacobianRegularizer`": lambda: JacobianRegularizer(1.0),
    "`LargeMargin`, margin 1": lambda: LargeMargin(1.0, margin=1.0),
}


def data(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images in [0, 1] and labels, to train on and held out."""
    if name == "digits":
        digits = load_digits()
        x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        y = torch.tensor(digits.target)
        return x[:1300], y[:1300], x[1300:1700], y[1300:1700]
    if name == "mnist":
        parts = [(MNIST(SHARED / "data", train=train), count) for train, count in ((True, 10_000), (False, 400))]
        x, y, test_x, test_y = (t for m, n in parts for t in (m.data[:n].unsqueeze(1).float() / 255, m.targets[:n]))
        return x, y, test_x, test_y
    return (*_folder("train", 5_000), *_folder("test", 400))


def _folder(part: str, count: int) -> tuple[Tensor, Tensor]:
    transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    images = ImageFolder(SHARED / "data" / "cifar10_jpeg" / part, transform)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return next(iter(DataLoader(Subset(images, order.tolist()), count)))


def network(shape: torch.Size) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(32 * -(-shape[1] // 4) * -(-shape[2] // 4), 10),
    )  # fmt: skip


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "digits"
    x, y, *held_out = data(name)
    batches = list(zip(x.split(64), y.split(64), strict=True))
    print(f"{name}: {len(x)} images, {STEPS[name]} steps, torch {torch.__version__}\n")
    print(f"| penalty | unit | plain | {' | '.join(f'{r:g}' for r in RELATIVE)} units |\n|---|{'---:|' * 7}")
    for title, make in PENALTIES.items():
        sweep = suggest_weights(
            network(x.shape[1:]), batches, tuple(held_out), regularizer=make(), relative=RELATIVE, steps=STEPS[name]
        )
        rows = zip(sweep.weights, sweep.accuracy, sweep.linearized_robustness, strict=True)
        cells = [f"{a:.1%} {rho:.2g}{' <' if w == sweep.best else ''}" for w, a, rho in rows]
        print(f"| {name}: {title} | {sweep.unit:.3g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
