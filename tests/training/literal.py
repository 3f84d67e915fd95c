"""The penalties as the papers write them: one sample, one class, one gradient at a time, differentiated twice."""

import math

import torch

DUAL = {1: math.inf, 2: 2, math.inf: 1}


def each_sample(net, inputs, target):
    """Of each sample: scores (K,), a function from a scalar to its flat input gradient, the flat input, the class."""
    for sample, t in zip(inputs, target.tolist(), strict=True):
        x = sample.clone().requires_grad_()
        z = net(x.unsqueeze(0)).squeeze(0)
        if z.ndim == 0 or len(z) == 1:
            z = torch.stack([-z.reshape(()) / 2, z.reshape(()) / 2])

        def gradient(value, x=x):
            return torch.autograd.grad(value, x, create_graph=True)[0].flatten()

        yield z, gradient, sample.flatten(), t


def named(of, z, t):
    """The quantity q that ``of`` names."""
    others = [z[j] for j in range(len(z)) if j != t]
    return {"loss": -torch.log(z[t].exp() / z.exp().sum()), "score": z[t], "margin": z[t] - max(others)}[of]


def size(g, norm):
    return {1: g.abs().max(), 2: (g * g).sum().sqrt(), math.inf: g.abs().sum()}[norm]


def lipschitz(net, inputs, target, *, of="loss", norm=2, squared=True):
    sizes = [size(gradient(named(of, z, t)), norm) for z, gradient, _, t in each_sample(net, inputs, target)]
    return torch.stack(sizes) ** (2 if squared else 1)


def jacobian(net, inputs, target, *, directions=None):
    """½‖J‖², exact, or K/(2n) Σ ‖∇<v, z>‖² over ``directions`` (n, N, K)."""
    penalties = []
    for i, (z, gradient, _, _) in enumerate(each_sample(net, inputs, target)):
        if directions is None:
            penalties.append(sum((gradient(score) ** 2).sum() for score in z) / 2)
        else:
            n = len(directions)
            squares = sum((gradient((v * z).sum()) ** 2).sum() for v in directions[:, i])
            penalties.append(len(z) / (2 * n) * squares)
    return torch.stack(penalties)


def interpretation(net, inputs, target, maps, *, direction, magnitude, magnitude_over="sample", of="score"):
    gradients = [gradient(named(of, z, t)) for z, gradient, _, t in each_sample(net, inputs, target)]
    frobenius = torch.stack(gradients).norm()
    return torch.stack(
        [
            direction * (1 - (m.flatten() @ g) / (m.norm() * g.norm()))
            + magnitude * (frobenius if magnitude_over == "batch" else g.norm())
            for m, g in zip(maps, gradients, strict=True)
        ]
    )


def large_margin(net, inputs, target, *, margin, norm=2, candidates=None, eps=1e-6):
    penalties = []
    for z, gradient, _, t in each_sample(net, inputs, target):
        gaps = sorted((z[t] - z[j] for j in range(len(z)) if j != t), key=torch.Tensor.item)[:candidates]
        distances = [gap / (gradient(gap).norm(DUAL[norm]) + eps) for gap in gaps]
        penalties.append((margin - min(distances, key=torch.Tensor.item)).clamp(min=0))
    return torch.stack(penalties)


def alignment(net, inputs, target, *, of="score", norm=2):
    penalties = []
    for z, gradient, x, t in each_sample(net, inputs, target):
        g = gradient(named(of, z, t))
        penalties.append(1 - (x @ g).abs() / (x.norm(norm) * g.norm(DUAL[norm])))
    return torch.stack(penalties)
