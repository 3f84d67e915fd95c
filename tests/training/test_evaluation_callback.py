from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from captum_alignment import adversarial_distance, linear_analysis
from captum_alignment.metrics import alignment_null
from captum_alignment.training import EvaluationCallback

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

NAMES = ("alignment", "alignment_null", "linearized_robustness")


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(9, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Dictionary(Module):
    def forward(self, x):
        return {"scores": self.net(x)}

    def training_step(self, batch):
        return F.cross_entropy(self(batch[0])["scores"], batch[1])

    def validation_step(self, batch):
        pass


class Log(Callback):
    """What each epoch has logged, and what the same numbers are by hand."""

    def __init__(self, probe):
        self.probe, self.logged, self.expected = probe, [], []

    def on_validation_end(self, trainer, pl_module: Any):
        if trainer.sanity_checking:
            assert "alignment" not in trainer.callback_metrics
            return
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        assert not pl_module.training  # Lightning's own mode, as it was
        with torch.inference_mode(False):
            analysis = linear_analysis(pl_module.net, self.probe)
            null = alignment_null(self.probe, analysis.gradient).null
            found = adversarial_distance(pl_module.net, self.probe).distance
        values = (analysis.alignment, null, analysis.linearized_robustness, found)
        self.expected.append([float(torch.quantile(v, 0.5)) for v in values])


def fit(*callbacks, module=None, **options):
    x = torch.rand(24, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    y = torch.arange(24) % 3
    log = Log(x[:10])
    trainer = Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks, log], **options,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(x, y), batch_size=12)
    trainer.fit(module or Module(), loader, DataLoader(TensorDataset(x, y), batch_size=12))
    return log


@pytest.mark.parametrize("inference_mode", [True, False])
def test_it_logs_the_medians_of_the_same_samples_in_every_epoch(inference_mode):
    log = fit(EvaluationCallback(samples=10, distance_every=2), inference_mode=inference_mode)
    assert len(log.logged) == 3
    for epoch, (logged, expected) in enumerate(zip(log.logged, log.expected, strict=True)):
        names = (*NAMES, "distance") if epoch != 1 else NAMES
        assert [logged[name] for name in names] == pytest.approx(expected[: len(names)], rel=1e-4)
    assert log.logged[0]["alignment"] != log.logged[2]["alignment"]


def test_training_goes_on_as_without_it():
    def weights(*callbacks):
        module = Module()
        torch.manual_seed(3)
        fit(*callbacks, module=module)
        return torch.cat([p.detach().flatten() for p in module.state_dict().values()])

    torch.testing.assert_close(weights(EvaluationCallback()), weights(), rtol=0, atol=0)


def test_names_and_scores_of_other_modules():
    callback = EvaluationCallback(
        samples=10, prefix="val/", scores=lambda module, x: module(x)["scores"], unpack=lambda batch: tuple(batch)
    )
    log = fit(callback, module=Dictionary())
    assert {f"val/{name}" for name in NAMES} <= set(log.logged[0])
    assert log.logged[-1]["val/alignment"] == pytest.approx(log.expected[-1][0], rel=1e-4)


def test_bad_input():
    for name, value in {"samples": 0, "distance_every": 0, "norm": 3}.items():
        options: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=name):
            EvaluationCallback(**options)
    with pytest.raises(ValueError, match="prefix: got '' of two callbacks"):
        fit(EvaluationCallback(), EvaluationCallback(norm=1))
    with pytest.raises(ValueError, match="bounds"):
        fit(EvaluationCallback(distance_every=1, bounds=(0, 0.5)))
    with pytest.raises(TypeError, match="model"):
        fit(EvaluationCallback(), module=Dictionary())
