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

from captum_alignment import training

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


def plain_loop(regularizer, inputs, target):
    """Three steps, because what DDP does depends on the step before."""
    model = DistributedDataParallel(net())
    found: list[torch.Tensor] = []
    for _ in range(3):
        model.zero_grad()
        (F.cross_entropy(model(inputs), target) + regularizer(model, inputs, target)).backward()
        found.append(gradients(model))
    return found


def term_alone(inputs, target):
    model = DistributedDataParallel(net())
    try:
        training.LocalLipschitz(1.0)(model, inputs, target).backward()
    except ValueError as error:
        return str(error)
    with model.no_sync():  # asks for no averaging
        training.LocalLipschitz(1.0)(model, inputs, target).backward()
    return "no error"


def sharded(inputs, target):
    """Why double backward is refused, and the gradients of finite differences on a model that FSDP has sharded."""
    from torch.distributed.fsdp import fully_shard

    model = net()
    fully_shard(model, mesh=distributed.device_mesh.init_device_mesh("cpu", (2,)))
    reason = "no error"
    try:
        training.LocalLipschitz(0.5)(model, inputs, target)
    except TypeError as error:
        reason = str(error)
    term = REGULARIZERS["finite differences"]()(model, inputs, target)
    (F.cross_entropy(model(inputs), target) + term).backward()
    parts: list[Any] = [p.grad for p in model.parameters()]
    return reason, torch.cat([part.full_tensor().flatten() for part in parts])


def lightning(inputs, target):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.found = []

        def training_step(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def on_before_optimizer_step(self, optimizer):
            self.found.append(gradients(self.net))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Module()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo"), max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[training.LipschitzRegularization(0.5)],
    )  # fmt: skip
    batches: Any = [(inputs, target)] * 3
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module.found


def main(rank, folder):
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = [part.chunk(2)[rank] for part in data()]
    result: dict[str, Any] = {name: plain_loop(make(), *half) for name, make in REGULARIZERS.items()}
    result["alone"] = term_alone(*half)
    result["sharded"] = sharded(*half)
    result["lightning"] = lightning(*half)
    torch.save(result, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
