"""What does a training step cost with each penalty, against the same written by hand and the peers' own formulas?

A step is forward, loss, penalty, backward on the paper's MNIST net. Ratios are medians over rounds of the ratio within
one round, in which all variants take turns. Memory is what autograd keeps for backward passes, each storage once.
"""

from contextlib import contextmanager
from statistics import median

import torch
from torch import nn
from torch.autograd import grad
from torch.nn import functional as F

from benchmarks._timing import DEVICE, counted, effort, machine, table
from captum_alignment import training

BATCH, ROUNDS, K = 32, 21, 10


def small_net():
    layers, channels = [], 1
    for width in (32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 128), nn.ReLU(), nn.Linear(128, K)).to(DEVICE)


torch.manual_seed(0)
net = small_net()
x, y = torch.rand(BATCH, 1, 28, 28, device=DEVICE), torch.randint(K, (BATCH,), device=DEVICE)
maps = torch.randn_like(x)
generator = torch.Generator().manual_seed(0)


def step(term, own):
    """One step with ``term(scores, inputs)``: on the loss's own graph, or on that of a second forward pass."""

    def run():
        net.zero_grad()
        leaf = x.detach().requires_grad_()
        scores = net(x if own else leaf)
        loss = F.cross_entropy(scores, y)
        (loss + term(net(leaf) if own else scores, leaf)).backward()

    return run


def whole(regularizer, *extras):
    """One step with a configured regularizer."""

    def run():
        net.zero_grad()
        (F.cross_entropy(net(x), y) + regularizer(net, x, y, *extras)).backward()

    return run


def plain():
    net.zero_grad()
    F.cross_entropy(net(x), y).backward()


def squares(g):
    return g.flatten(1).square().sum(1)


def lipschitz(scores, leaf):
    (g,) = grad(F.cross_entropy(scores, y, reduction="sum"), leaf, create_graph=True)
    return squares(g).mean()


def jacobian(scores, leaf):
    """The formula of facebookresearch/jacobian_regularizer with one projection."""
    v = torch.randn(BATCH, K, device=DEVICE)
    v = v / v.norm(2, 1, True)
    (jv,) = grad(scores.reshape(-1), leaf, v.reshape(-1), retain_graph=True, create_graph=True)
    return 0.5 * K * jv.norm() ** 2 / BATCH


def noack(scores, leaf):
    """Noack et al.: the mean cosine and the Frobenius norm of the batch."""
    (g,) = grad(scores.gather(1, y[:, None]).sum(), leaf, create_graph=True)
    return 3 * (1 - F.cosine_similarity(maps.flatten(1), g.flatten(1)).mean()) + 0.15 * g.norm()


def alignment(scores, leaf):
    (g,) = grad(scores.gather(1, y[:, None]).sum(), leaf, create_graph=True)
    return (1 - F.cosine_similarity(leaf.detach().flatten(1), g.flatten(1)).abs()).mean()


def elsayed(scores, leaf, count=K - 1, twice=True):
    """Elsayed et al.: the nearest of ``count`` rivals, each differentiated twice unless only the nearest need be."""
    own = scores.gather(1, y[:, None])
    order = (own - scores).detach().scatter(1, y[:, None], torch.inf).argsort(1)

    def distance(rival, create_graph):
        gap = (own - scores.gather(1, rival)).squeeze(1)
        (g,) = grad(gap.sum(), leaf, create_graph=create_graph, retain_graph=True)
        return gap / (g.flatten(1).norm(dim=1) + 1e-6)

    distances = torch.stack([distance(order[:, i : i + 1], twice) for i in range(count)])
    nearest = distances.min(0).values if twice else distance(order.gather(1, distances.argmin(0)[:, None]), True)
    return F.relu(2 - nearest).mean()


def finlay():
    """Finlay & Oberman: the loss at x and a step along its gradient, the slope squared."""
    net.zero_grad()
    leaf = x.detach().requires_grad_()
    loss = F.cross_entropy(net(x), y)
    base = F.cross_entropy(net(leaf), y, reduction="none")
    (g,) = grad(base.sum(), leaf, retain_graph=True)
    moved = x + 0.01 * g / (g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) + 1e-12)
    slope = (F.cross_entropy(net(moved), y, reduction="none") - base) / 0.01
    (loss + slope.square().mean()).backward()


def ours(function, *extras, **options):
    return lambda scores, leaf: function(scores, leaf, *extras, **options).mean()


NOACK = {"direction": 3.0, "magnitude": 0.15, "magnitude_over": "batch"}
MARGIN = {"margin": 2.0}
#: Name, ours, the peer, both on the same number of forward passes.
PAIRS = [
    ("lipschitz, shared", step(ours(training.input_gradient_penalty, y), False), step(lipschitz, False)),
    ("lipschitz, own", whole(training.LocalLipschitz(1.0)), step(lipschitz, True)),
    ("lipschitz, differences", whole(training.LocalLipschitz(1.0, method="finite-difference")), finlay),
    (
        "jacobian, shared",
        step(ours(training.jacobian_penalty, projections=1, generator=generator), False),
        step(jacobian, False),
    ),
    ("jacobian, own", whole(training.JacobianRegularizer(1.0)), step(jacobian, True)),
    ("interpretation, shared", step(ours(training.saliency_penalty, y, maps, **NOACK), False), step(noack, False)),
    ("interpretation, own", whole(training.InterpretationRegularizer(**NOACK), maps), step(noack, True)),
    ("alignment, own", whole(training.AlignmentRegularizer(1.0)), step(alignment, True)),
    (
        "large margin, by hand",
        whole(training.LargeMargin(1.0, **MARGIN)),
        step(lambda scores, leaf: elsayed(scores, leaf, twice=False), True),
    ),
    ("large margin, literal", whole(training.LargeMargin(1.0, **MARGIN)), step(elsayed, True)),
    (
        "large margin, 2 rivals",
        whole(training.LargeMargin(1.0, **MARGIN, candidates=2)),
        step(lambda scores, leaf: elsayed(scores, leaf, 2, False), True),
    ),
]


@contextmanager
def kept():
    """The bytes that autograd has saved for backward passes, each storage once."""
    storages, total = {}, []

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    total.append(sum(storages.values()) / 2**20)


def measured(function):
    """MiB kept, forward passes and backward calls of one step."""
    with kept() as memory:
        function()
    with counted(net) as passes:
        function()
    return memory[0], passes.forward, passes.backward


def main():
    torch.set_num_threads(1)
    functions = [plain, *(f for _, own, peer in PAIRS for f in (own, peer))]
    for function in functions:
        function()
    # What ran before leaves the caches and the allocator in its state: every second round goes backwards.
    rounds = [{f: effort(f) for f in functions[:: 1 - 2 * (i % 2)]} for i in range(ROUNDS)]

    def typical(f, unit):
        return median(times[f] / unit(times) for times in rounds)

    print(f"SmallNet, batch {BATCH}, {machine()}, processor time, median of {ROUNDS}")
    print(f"plain step {1e3 * typical(plain, lambda _: 1):.1f} ms\n")
    rows = []
    for name, own, peer in PAIRS:
        (memory, forwards, backwards), (peer_memory, *_) = measured(own), measured(peer)
        ms, peer_ms = (1e3 * typical(f, lambda _: 1) for f in (own, peer))
        ratio = f"{typical(own, lambda times, peer=peer: times[peer]):.3f}"
        over_plain = typical(own, lambda times: times[plain])
        rows.append([name, ms, peer_ms, ratio, over_plain, forwards, backwards, memory, peer_memory])
    table(["penalty", "ms", "peer ms", "/ peer", "/ plain", "forwards", "backwards", "MiB", "peer MiB"], rows)


if __name__ == "__main__":
    main()
