"""With Hugging Face accelerate: `accelerator.backward(loss + term)`; it scales and divides the sum by itself."""

import sys

import torch
from digits import images_and_labels
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from captum_alignment.training import LocalLipschitz

print("One training loop for one device, DDP and mixed precision:")
print("    term = regularizer(model, x, y)")
print("    accelerator.backward(loss + term)\n")
try:
    from accelerate import Accelerator
except ImportError:
    print("accelerate is not installed: pip install accelerate")
    sys.exit()

torch.manual_seed(0)
images, labels = images_and_labels()
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model, optimizer, loader = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=3e-3), loader)
regularizer = LocalLipschitz(0.1)

for epoch in range(6):
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(x), y)
            term = regularizer(model, x, y)
            accelerator.backward(loss + term)
            optimizer.step()
            optimizer.zero_grad()
    print(f"epoch {epoch}: loss {loss.item():.3f}, term {term.item():.3f}, gradient {regularizer.gradient_norm:.3f}")
