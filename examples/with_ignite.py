"""With PyTorch Ignite: the term belongs into the update function; handlers cannot change the loss."""

import sys

import torch
from digits import images_and_labels
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from captum_alignment.training import LocalLipschitz

print("An update function that returns the loss and its term:")
print("    term = regularizer(model, x, y)")
print("    (loss + term).backward()\n")
try:
    from ignite.engine import Engine, Events
    from ignite.metrics import RunningAverage
except ImportError:
    print("ignite is not installed: pip install pytorch-ignite")
    sys.exit()

torch.manual_seed(0)
images, labels = images_and_labels()
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
regularizer = LocalLipschitz(0.1)


def update(_engine, batch):
    x, y = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    term = regularizer(model, x, y)
    (loss + term).backward()
    optimizer.step()
    return {"loss": loss.item(), "term": term.item(), "gradient": regularizer.gradient_norm.item()}


trainer = Engine(update)
for name in ("loss", "term", "gradient"):
    RunningAverage(output_transform=lambda output, name=name: output[name]).attach(trainer, name)


@trainer.on(Events.EPOCH_COMPLETED)
def report(engine):
    print(f"epoch {engine.state.epoch}: " + ", ".join(f"{k} {v:.3f}" for k, v in engine.state.metrics.items()))


trainer.run(DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True), max_epochs=6)
