"""One of two processes of `test_distributed.py`: ``two_processes.py RANK FOLDER``."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from captum_alignment import metrics, training

N = 12
REGULARIZERS = {
    "lipschitz": partial(training.LocalLipschitz, 0.5),
    "jacobian": partial(training.JacobianRegularizer, 0.5, projections=None),
    "large margin": partial(training.LargeMargin, 0.5, margin=3.0),
    "finite differences": partial(training.LocalLipschitz, 0.5, method="finite-difference"),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(N, 1, 3, 3, dtype=torch.float64, generator=generator), torch.arange(N) % 3


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def plain_loop(regularizer, inputs, target, *, first=False, **options):
    """Three steps, because what DDP does depends on the step before."""
    model = DistributedDataParallel(net(), **options)
    found: list[torch.Tensor] = []
    for _ in range(3):
        model.zero_grad()
        early = regularizer(model, inputs, target) if first else 0
        loss = F.cross_entropy(model(inputs), target)
        (loss + (early if first else regularizer(model, inputs, target))).backward()
        found.append(gradients(model))
    return found


def own_graph(inputs, target, **options):
    """The penalty on the graph of DDP's own forward pass."""
    model = DistributedDataParallel(net(), **options)
    found: list[torch.Tensor] = []
    for _ in range(3):
        model.zero_grad()
        leaf = inputs.clone().requires_grad_()
        scores = model(leaf)
        (
            F.cross_entropy(scores, target) + 0.5 * training.input_gradient_penalty(scores, leaf, target).mean()
        ).backward()
        found.append(gradients(model))
    return found


def reason(function, *args, **options):
    try:
        function(*args, **options)
    except (TypeError, ValueError) as error:
        return str(error)
    return "no error"


def apart(inputs, target, *, ahead=False, **options):
    """Loss and term in backward passes of their own, the term computed before or after the first."""
    model = DistributedDataParallel(net(), **options)
    loss = F.cross_entropy(model(inputs), target)
    term = training.LocalLipschitz(1.0)(model, inputs, target) if ahead else None
    loss.backward()
    (training.LocalLipschitz(1.0)(model, inputs, target) if term is None else term).backward()


def term_alone(inputs, target):
    model = DistributedDataParallel(net())
    with model.no_sync():  # asks for no averaging
        training.LocalLipschitz(1.0)(model, inputs, target).backward()
    training.LocalLipschitz(1.0)(model, inputs, target).backward()


def fabric(inputs, target, *, apart=False, **options):
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    host = Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo", **options))
    host.launch()
    inner = net()
    model: Any = host.setup(inner)
    found: list[torch.Tensor] = []
    for _ in range(1 if apart else 3):
        inner.zero_grad()
        loss, term = F.cross_entropy(model(inputs), target), training.LocalLipschitz(0.5)(model, inputs, target)
        for part in (loss, term) if apart else (loss + term,):
            host.backward(part)
        found.append(gradients(inner))
    return found


def sharded(inputs, target):
    """Why double backward is refused, and the gradients of finite differences on a model that FSDP has sharded."""
    from torch.distributed.fsdp import fully_shard

    model = net()
    fully_shard(model, mesh=distributed.device_mesh.init_device_mesh("cpu", (2,)))
    why = reason(training.LocalLipschitz(0.5), model, inputs, target)
    term = REGULARIZERS["finite differences"]()(model, inputs, target)
    (F.cross_entropy(model(inputs), target) + term).backward()
    parts: list[Any] = [p.grad for p in model.parameters()]
    return why, torch.cat([part.full_tensor().flatten() for part in parts])


def lightning(inputs, target, *, static_graph=False, **options):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.found = []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

        def on_before_optimizer_step(self, optimizer):
            self.found.append(gradients(self.net))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Module()
    trainer = Trainer(
        accelerator="cpu", devices=2, max_epochs=1, logger=False,
        strategy=DDPStrategy(process_group_backend="gloo", static_graph=static_graph),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[training.LipschitzRegularization(0.5, **options)],
    )  # fmt: skip
    batches: Any = [(inputs, target)] * 3
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module.found


def accumulated(inputs, _target):
    metric = metrics.RobustnessMetric()
    metric.update(net(), inputs)
    return metric.compute()


def main(rank, folder):
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = [part.chunk(2)[rank] for part in data()]
    result: dict[str, Any] = {name: plain_loop(make(), *half) for name, make in REGULARIZERS.items()}
    result["term before loss"] = plain_loop(REGULARIZERS["lipschitz"](), *half, first=True)
    for first in (False, True):
        name = f"static graph, term {'before' if first else 'after'} loss"
        result[name] = plain_loop(REGULARIZERS["lipschitz"](), *half, first=first, static_graph=True)
    result["own graph"] = own_graph(*half)
    result["fabric"] = fabric(*half)
    result["lightning"] = lightning(*half)
    result["lightning, own forward"] = lightning(*half, forward="own", static_graph=True)
    result["metric"] = accumulated(*half)
    result["sharded"] = sharded(*half)
    result["refused"] = {
        "term alone": reason(term_alone, *half),
        "two backward passes": reason(apart, *half),
        "two backward passes, static graph": reason(apart, *half, static_graph=True),
        "two backward passes, term ahead": reason(apart, *half, ahead=True),
        "two backward passes, term ahead, static graph": reason(apart, *half, ahead=True, static_graph=True),
        "two backward passes, fabric": reason(fabric, *half, apart=True),
        "two backward passes, fabric, static graph": reason(fabric, *half, apart=True, static_graph=True),
        "own graph, static": reason(own_graph, *half, static_graph=True),
        "lightning, static": reason(lightning, *half, static_graph=True),
    }
    torch.save(result, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
