"""Bounds for the points that a rival claims: they hold for every such point, and they certify more."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_alignment._core._piecewise_trace import trace
from captum_alignment.robust._certified_relaxation import Claim, Relaxation
from captum_alignment.robust._certified_search import Search
from tests.nets import mlp


def search(seed, norm, bounds):
    torch.manual_seed(seed)
    net, x = mlp(3), torch.rand(1, 6).double()
    relaxation = Relaxation(trace(net, (x,)), (x,), norm, bounds)
    return net, x, Search(relaxation, int(net(x).argmax()), 1024)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, math.inf]), st.booleans(), st.integers(1, 8))
def test_bounds_hold_for_every_point_that_the_rival_claims(seed, norm, bounded, steps):
    net, x, found = search(seed, norm, (0, 1) if bounded else None)
    d = torch.randn(20_000, 6).double()
    d[::3] = d[::3].sign()
    points = x + d
    points = points.clamp(0, 1) if bounded else points
    scores = net(points).detach()
    size = torch.linalg.vector_norm(points - x, norm, dim=1)
    for j, row in enumerate(found.coefficients[:, 0]):
        claimed = (scores @ row <= 0).nonzero().flatten()
        if not len(claimed):
            continue
        eps = float(size[claimed].median()) * (1 + 1e-12)
        inside = points[claimed[size[claimed] <= eps]]
        relaxation = found.relaxation
        relaxation.enclose(eps, steps, 64)
        for _ in range(3):
            relaxation = relaxation.within(Claim(found.coefficients[j], found.gap[j]), eps, steps, 64)
            assert relaxation is not None  # there are such points
            for i, lines in relaxation._lines.items():
                layer = relaxation.network.nodes[i].parents[0]
                z = torch.stack([relaxation.network.values((point[None],))[layer] for point in inside[:200]])
                assert ((z >= lines.low) & (z <= lines.high)).all()
            with torch.no_grad():
                lead = relaxation.least(relaxation.network.output, found.coefficients[j : j + 1], eps, steps)
            assert float(found.gap[j] + lead) <= float((net(inside).detach() @ row).min()) + 1e-9


@pytest.mark.parametrize("norm", [2, math.inf])
def test_rivals_raise_what_is_certified(norm):
    _, _, found = search(1, norm, (0, 1))
    found.run((20, 10))
    before = found.certified
    found.visit(10)
    assert found.certified > before > 0


def test_a_search_is_content_with_anything_after_so_much_work():
    _, _, found = search(0, 2, None)
    found.relaxation.work = math.inf
    found.run((0, 0))
    first = found.certified
    assert first > 0
    found.visit(10)
    assert found.certified == first
