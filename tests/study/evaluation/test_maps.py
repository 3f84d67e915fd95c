import pytest
import torch

from captum_alignment.study.evaluation import EvaluationConfig
from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._chance import Explained
from captum_alignment.study.evaluation._maps import GroupMaps, make_maps
from captum_alignment.study.evaluation._plan import make_plan
from captum_alignment.study.load import NamedAttribution
from tests.study.evaluation.test_evaluate import Images, network

X = Images(12).images


def test_a_batch_that_fails_is_repeated_one_by_one():
    sizes = []

    def fragile(_model, images, _targets):
        sizes.append(len(images))
        if (images == X[4]).flatten(1).all(1).any():
            raise RuntimeError("not this one")
        return images

    found = make_maps(NamedAttribution("mine", fragile), None, X[:7], None, BatchSize(3, network(), X[:1]))
    assert sizes == [3, 3, 1, 1, 1, 1]
    assert found.failed == [""] * 4 + ["RuntimeError: not this one"] + [""] * 2
    assert found.maps.isnan().flatten(1).all(1).tolist() == [why != "" for why in found.failed]


def test_a_batch_that_is_too_large_is_halved_and_an_image_that_is_has_a_reason():
    sizes, limit = [], 3

    def hungry(_model, images, _targets):
        sizes.append(len(images))
        if len(images) > limit or (images == X[5]).flatten(1).all(1).any():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images

    found = make_maps(NamedAttribution("mine", hungry), None, X, None, BatchSize("auto", network(), X[:1]))
    assert sizes == [12, 6, 3, 3, *[1] * 10]  # the one that fails alone is tried again
    assert found.failed == [""] * 5 + ["OutOfMemoryError: CUDA out of memory"] + [""] * 6
    with pytest.raises(MemoryError, match=r"batch_size: 4 samples .* 'auto'"):
        make_maps(NamedAttribution("mine", hungry), None, X, None, BatchSize(4, network(), X[:1]))


def test_a_group_is_explained_once_however_many_parts_ask_and_the_callers_draws_stay():
    calls = []

    def noise(images, _targets):
        calls.append(len(images))
        return torch.rand_like(images)

    plan = make_plan(network(), Images(12), EvaluationConfig(attributions={"noise": noise}))
    maps = GroupMaps(plan, BatchSize(12, plan.model, plan.like))
    group = {index: Explained(X[index], X[index], 0) for index in range(12)}
    state = torch.random.get_rng_state()
    first, again = maps.of(group)["noise"], maps.of(group)["noise"]
    assert calls == [12]
    assert first is again
    maps.of({0: group[0]})
    torch.testing.assert_close(maps.of(group)["noise"].maps, first.maps, rtol=0, atol=0)
    assert torch.equal(state, torch.random.get_rng_state())
