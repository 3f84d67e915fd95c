"""Train the same net with and without local Lipschitz regularization, and ask what it did to robustness and alignment.

The Lightning module knows nothing of the regularization: a callback adds λ · mean ‖∇ₓ loss‖² on the module's own graph.
Needs ``pip install 'captum-alignment[study]'``; the data comes with scikit-learn.
"""

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from captum_alignment import linear_analysis
from captum_alignment.training import LipschitzRegularization

HELD_OUT = 297


class DigitsNet(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def train(data, *callbacks):
    seed_everything(0, verbose=False)
    model = DigitsNet()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=12, accelerator="cpu", callbacks=list(callbacks), enable_model_summary=False, **quiet)
    trainer.fit(model, DataLoader(data, batch_size=50, shuffle=True))
    return model.eval()


def main():
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers")  # the data is in memory
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # between lightning and torch
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train_set = TensorDataset(images[:-HELD_OUT], labels[:-HELD_OUT])
    x, y = images[-HELD_OUT:], labels[-HELD_OUT:]

    print("     λ   accuracy   linearized robustness   alignment   (medians over held-out digits)")
    for weight in (0.0, 0.03, 0.3):
        model = train(train_set, LipschitzRegularization(weight))
        with torch.no_grad():
            accuracy = (model(x).argmax(1) == y).float().mean()
        analysis = linear_analysis(model, x)
        robustness, alignment = analysis.linearized_robustness.median(), analysis.alignment.median()
        print(f"{weight:6g}   {accuracy:8.1%}   {robustness:21.3f}   {alignment:9.3f}")


if __name__ == "__main__":
    main()
