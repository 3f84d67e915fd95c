"""Tokens have no gradient: penalise a text model through its embedding, in any loop and in Lightning.

A made-up language: the class of a sentence is the group that most of its words come from. Robustness is measured in the
space of the embeddings, where a step of the median distance between two words means another word.
"""

import torch
from torch import nn
from torch.nn import functional as F

from captum_alignment import linear_analysis
from captum_alignment.training import LayerInputs, LocalLipschitz

WORDS, LENGTH, CLASSES = 60, 12, 3


def sentences(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    own = labels[:, None] + CLASSES * torch.randint(WORDS // CLASSES, (n, LENGTH), generator=generator)
    other = torch.randint(WORDS, (n, LENGTH), generator=generator)
    return torch.where(torch.rand(n, LENGTH, generator=generator) < 0.45, own, other), labels


class TextNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, CLASSES))

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(1))


def train(weight, tokens, labels):
    torch.manual_seed(0)
    model, regularizer = TextNet(), LocalLipschitz(weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for part in torch.randperm(len(tokens)).split(100):
            x, y = tokens[part], labels[part]
            embedded = LayerInputs(model, "embedding", x)
            loss = F.cross_entropy(model(x), y) + regularizer(embedded, embedded.inputs, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main():
    print("In a loop:      embedded = LayerInputs(model, 'embedding', tokens)")
    print("                term = LocalLipschitz(10)(embedded, embedded.inputs, labels)")
    print("In Lightning:   LipschitzRegularization(10, layer='embedding')\n")
    train_set, (x, y) = sentences(2000, 0), sentences(300, 1)
    print("weight  accuracy  median rho~ among embeddings  in median distances of two words")
    for weight in (0.0, 10.0, 100.0):
        model = train(weight, *train_set)
        embedded = LayerInputs(model, "embedding", x)
        robustness = linear_analysis(embedded, embedded.inputs).linearized_robustness.median().item()
        between = torch.pdist(model.embedding.weight.detach()).median().item()
        accuracy = (model(x).argmax(1) == y).float().mean().item()
        print(f"{weight:6g}  {accuracy:8.1%}  {robustness:28.2f}  {robustness / between:32.2f}")


if __name__ == "__main__":
    main()
