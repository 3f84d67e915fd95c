import pytest
import torch

from captum_alignment import metrics, training
from captum_alignment._core._random import as_generator, draw_seeds, seeded


def test_seeded_chance_is_that_of_the_seed_and_leaves_the_global_one_also_after_an_error():
    before = torch.random.get_rng_state()
    with seeded(3, torch.device("cpu")):
        found = torch.rand(4)
    assert torch.equal(found, torch.rand(4, generator=torch.Generator().manual_seed(3)))
    with pytest.raises(RuntimeError), seeded(3, torch.device("cpu")):
        torch.rand(1).reshape(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeds_come_from_the_generator_and_by_default_from_a_fixed_one():
    assert draw_seeds(None, 3) == draw_seeds(None, 3)
    assert len(set(draw_seeds(None, 50))) == 50
    generator = torch.Generator().manual_seed(9)
    first, second = draw_seeds(generator, 2), draw_seeds(generator, 2)
    assert first != second
    assert draw_seeds(torch.Generator().manual_seed(9), 2) == first


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, g: metrics.remove_features(x, x, 0.5, baselines=0, generator=g),
        lambda x, g: metrics.exchangeability_test(x, x, torch.zeros(len(x)).long(), generator=g),
        lambda x, g: metrics.linear_region(torch.nn.Linear(4, 3), x, generator=g),
        lambda x, g: training.permute_maps(x, 0.5, generator=g),
        lambda x, g: training.JacobianRegularizer(1.0, generator=g),
    ],
)
def test_a_seed_is_no_generator(call, seed):
    with pytest.raises(TypeError, match=r"generator: got int, expected a torch\.Generator"):
        call(torch.rand(6, 4), seed)


def test_no_generator_is_one_that_starts_from_0():
    given = torch.Generator()
    assert as_generator(given) is given
    assert as_generator(None).initial_seed() == 0
