import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_alignment.robust._plane import to_plane


def by_bisection(center, normal, height, bounds, norm):
    """The shortest step to the plane: the step that the box cuts off at t, with t found by halving."""
    direction = -height.sign() * (normal if norm == 2 else normal.sign())

    def step(t):
        return (center + t * direction).clamp(*bounds) - center

    low, high = 0.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (normal * step(middle)).sum().abs() < height.abs() else (low, middle)
    return step(high)


def greedily(center, normal, height, bounds):
    """In l_1 the shortest step goes along the steepest coordinates, each as far as the box."""
    step, missing = torch.zeros_like(center), height.abs()
    for i in normal.abs().argsort(descending=True):
        sign = -height.sign() * normal[i].sign()
        room = bounds[1] - center[i] if sign > 0 else center[i] - bounds[0]
        far = torch.minimum(room, missing / normal[i].abs()) if normal[i] != 0 else 0 * room
        step[i], missing = sign * far, missing - normal[i].abs() * far
    return step


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, math.inf]), st.sampled_from([-1.0, 1.0]), st.floats(0.0, 1.5))
def test_projects_onto_the_plane_inside_the_box(seed, norm, sign, share):
    generator = torch.Generator().manual_seed(seed)
    center, normal = (torch.rand(7, generator=generator, dtype=torch.float64) for _ in range(2))
    normal = normal - 0.4
    normal[0], center[1], center[2] = 0.0, 0.0, 1.0
    corner = (normal * torch.where(-sign * normal > 0, 1 - center, -center)).sum().abs()
    height = (sign * share * corner).reshape(1)  # beyond 1 the plane misses the box
    step = to_plane(center.unsqueeze(0), normal.unsqueeze(0), height, (0.0, 1.0), norm)[0]
    if norm == 1:
        expected = greedily(center, normal, height[0], (0.0, 1.0))
    else:
        expected = by_bisection(center, normal, height, (0.0, 1.0), norm)
    torch.testing.assert_close((normal * step).sum(), (normal * expected).sum(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-7)
