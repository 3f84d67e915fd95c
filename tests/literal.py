"""The paper's definitions, written down slowly and literally: one sample, one class, one gradient at a time."""

import math

import torch


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def score_gradients(model, inputs, *args):
    """Scores (K,) and their gradients (K, D) for one sample, given as a tuple of tensors without batch dimension."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    scores = model(*(t.unsqueeze(0) for t in leaves), *args)[0]
    gradients = [
        flat([torch.zeros_like(t) if g is None else g for g, t in zip(gs, leaves, strict=True)])
        for gs in (torch.autograd.grad(s, leaves, retain_graph=True, allow_unused=True) for s in scores)
    ]
    return scores.detach(), torch.stack(gradients)


def analyse(model, inputs, target=None, norm=2, args=()):
    """Every quantity of `linear_analysis` for a tuple of batched inputs, sample by sample, as lists."""
    q = {1: math.inf, 2: 2, math.inf: 1}[norm]
    result = []
    for i in range(len(inputs[0])):
        sample = tuple(t[i] for t in inputs)
        own_args = [a[i : i + 1] if isinstance(a, torch.Tensor) and a.ndim else a for a in args]
        scores, gradients = score_gradients(model, sample, *own_args)
        x = flat(sample)
        t = int(scores.argmax()) if target is None else int(target[i])
        candidates = []
        for j in range(len(scores)):
            if j != t:
                gap = scores[t] - scores[j]
                size = (gradients[t] - gradients[j]).norm(q)
                candidates.append((float("inf") if size == 0 and gap > 0 else float(gap / size), j))
        rho, j = min(candidates)
        g, gb = gradients[t], gradients[t] - gradients[j]
        ghat, gbhat = g / g.norm(q), gb / gb.norm(q)
        alpha = float((x @ g).abs() / g.norm(q))
        alpha_b = float((x @ gb).abs() / gb.norm(q))
        beta = scores[t] - scores[j] - x @ gb
        bias = float(beta / gb.norm(q))
        apart = float(x.norm(norm)) * min(float((gbhat - ghat).norm(q)), float((gbhat + ghat).norm(q)))
        result.append(
            {
                "target": t,
                "rival": j,
                "gap": float(scores[t] - scores[j]),
                "alignment": alpha,
                "binarized_alignment": alpha_b,
                "linearized_robustness": rho,
                "bias": bias,
                "noncollinearity": apart,
                "bound": alpha + apart + abs(bias),
                "direction_gap": alpha_b - alpha,
                "bias_gap": rho - alpha_b,
            }
        )
    return result


def bias_terms(model, inputs, target, parameters):
    """Of each sample: the score Psi of ``target``, <x, ∇Psi>, and {name: <b, ∂Psi/∂b>} of ``parameters`` {name: b}."""
    result = []
    for i, t in enumerate(target):
        leaves = [t[i : i + 1].detach().clone().requires_grad_() for t in inputs]
        score = model(*leaves)[0, t]
        gradients = torch.autograd.grad(score, [*leaves, *parameters.values()])
        inner = [float((a.detach() * g).sum()) for a, g in zip([*leaves, *parameters.values()], gradients, strict=True)]
        n = len(leaves)
        result.append((float(score.detach()), sum(inner[:n]), dict(zip(parameters, inner[n:], strict=True))))
    return result
