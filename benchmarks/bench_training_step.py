"""What does the gradient penalty cost in one training step, and what of that is our own doing?

A step is forward, loss, penalty, backward and optimizer on the paper's MNIST net. The peers are the same steps written
by hand; the ratio is the median over rounds of the ratio within one round, in which all variants take turns.
"""

import time
from contextlib import contextmanager
from statistics import median
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import LipschitzRegularization, LocalLipschitz

WEIGHT = 1e-3
BATCH = 32
ROUNDS = 21
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def small_net():
    layers, channels = [], 1
    for width in (32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 128), nn.ReLU(), nn.Linear(128, 10)).to(DEVICE)


def plain(net, x, y):
    F.cross_entropy(net(x), y).backward()


def shared_by_hand(net, x, y):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(net(x), y)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    term = WEIGHT * (len(x) * gradient).flatten(1).square().sum(1).mean()
    (loss + term).backward()


def own_by_hand(net, x, y):
    loss = F.cross_entropy(net(x), y)
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(leaf), y, reduction="sum"), leaf, create_graph=True)
    (loss + WEIGHT * gradient.flatten(1).square().sum(1).mean()).backward()


class Module(nn.Module):
    """What the callback asks of a LightningModule."""

    automatic_optimization = True

    def backward(self, loss):
        loss.backward()


callback = LipschitzRegularization(WEIGHT, check=False)
module = Module()
trainer = SimpleNamespace(
    global_step=0, accumulate_grad_batches=1, precision_plugin=SimpleNamespace(scaler=None), barebones=True
)


def shared_ours(net, x, y):
    """The callback's hooks in the order in which Lightning calls them."""
    callback.on_train_batch_start(trainer, module, (x, y), 0)
    loss = F.cross_entropy(net(x), y) / trainer.accumulate_grad_batches
    callback.on_before_backward(trainer, module, loss)
    module.backward(loss)
    callback.on_train_batch_end(trainer, module, None, (x, y), 0)


regularizer = LocalLipschitz(WEIGHT)


def own_ours(net, x, y):
    (F.cross_entropy(net(x), y) + regularizer(net, x, y)).backward()


STEPS = {
    "plain step": (plain, plain),
    "shared forward, by hand": (shared_by_hand, shared_by_hand),
    "shared forward, LipschitzRegularization": (shared_ours, shared_by_hand),
    "own forward, by hand": (own_by_hand, own_by_hand),
    "own forward, LocalLipschitz": (own_ours, own_by_hand),
}


@contextmanager
def counted(net):
    """Counts the forward passes of ``net`` and the calls that run backward through it."""
    passes = SimpleNamespace(forward=0, backward=0)
    grad, backward = torch.autograd.grad, torch.Tensor.backward

    def count(name, function):
        def counting(*args, **kwargs):
            setattr(passes, name, getattr(passes, name) + 1)
            return function(*args, **kwargs)

        return counting

    hook = net.register_forward_hook(count("forward", lambda *_: None))
    torch.autograd.grad, torch.Tensor.backward = count("backward", grad), count("backward", backward)
    try:
        yield passes
    finally:
        torch.autograd.grad, torch.Tensor.backward = grad, backward
        hook.remove()


def main():
    torch.manual_seed(0)
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    x, y = torch.rand(BATCH, 1, 28, 28, device=DEVICE), torch.randint(10, (BATCH,), device=DEVICE)

    def timed(step):
        start = time.perf_counter()
        optimizer.zero_grad()
        step(net, x, y)
        optimizer.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    passes = {}
    for name, (step, _) in STEPS.items():
        with counted(net) as passes[name]:
            timed(step)  # also the warm-up
    rounds = [{step: timed(step) for step, _ in STEPS.values()} for _ in range(ROUNDS)]

    print(f"SmallNet, batch {BATCH}, {DEVICE}, {torch.get_num_threads()} threads, median of {ROUNDS}\n")
    print("| step | ms | / plain | / by hand | forwards | backwards |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (step, peer) in STEPS.items():
        ms, over_plain, over_peer = (
            median(times[step] / unit(times) for times in rounds)
            for unit in (lambda _: 1e-3, lambda times: times[plain], lambda times, peer=peer: times[peer])
        )
        counts = passes[name]
        print(f"| {name} | {ms:.1f} | {over_plain:.2f} | {over_peer:.3f} | {counts.forward} | {counts.backward} |")


if __name__ == "__main__":
    main()
