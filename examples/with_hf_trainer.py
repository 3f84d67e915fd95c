"""With the Hugging Face Trainer: override `compute_loss`; callbacks cannot change the loss there."""

import sys
import tempfile

import torch
from digits import images_and_labels
from torch import nn
from torch.nn import functional as F

from captum_alignment.training import LocalLipschitz

print("A Trainer whose compute_loss adds the term while it trains:")
print("    loss = super().compute_loss(model, inputs, ...)")
print("    return loss + regularizer(model.scores, inputs['pixel_values'], inputs['labels'])\n")
try:
    import accelerate  # noqa: F401 - the Trainer needs it, and says so only when it runs
    from transformers import Trainer, TrainingArguments
except ImportError:
    print("transformers or accelerate is not installed: pip install 'transformers[torch]'")
    sys.exit()


class Net(nn.Module):
    """Called as Hugging Face models are: with labels it returns a loss too."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def scores(self, pixel_values):
        return self.net(pixel_values)

    def forward(self, pixel_values, labels=None):
        logits = self.scores(pixel_values)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class RegularizedTrainer(Trainer):
    regularizer = LocalLipschitz(0.1)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training:
            scores = self.accelerator.unwrap_model(model).scores  # under DDP, the loss alone goes through the wrapper
            loss = loss + self.regularizer(scores, inputs["pixel_values"], inputs["labels"])
        return (loss, outputs) if return_outputs else loss


torch.manual_seed(0)
images, labels = images_and_labels()
data = [{"pixel_values": x, "labels": y} for x, y in zip(images[:1400], labels[:1400], strict=True)]
model = Net()
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, num_train_epochs=6, per_device_train_batch_size=50, learning_rate=3e-3, report_to="none",
        save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    result = RegularizedTrainer(model, arguments, train_dataset=data).train()
accuracy = (model(images[1400:])["logits"].argmax(1) == labels[1400:]).float().mean()
size = RegularizedTrainer.regularizer.gradient_norm
print(f"loss with its term {result.training_loss:.3f}, mean input gradient {size:.3f}")
print(f"accuracy on the last 397 digits {accuracy:.1%}")
