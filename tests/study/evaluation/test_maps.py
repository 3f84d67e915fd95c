import torch

from captum_alignment.study.evaluation import EvaluationConfig
from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._chance import Explained
from captum_alignment.study.evaluation._maps import GroupMaps, batches, make_maps
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

    found = make_maps(NamedAttribution("mine", fragile), None, X[:7], None, 3)
    assert sizes == [3, 3, 1, 1, 1, 1]
    assert found.failed == [""] * 4 + ["RuntimeError: not this one"] + [""] * 2
    assert found.maps.isnan().flatten(1).all(1).tolist() == [why != "" for why in found.failed]
    assert [range(7)[rows] for rows in batches(7, 3)] == [range(3), range(3, 6), range(6, 7)]


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
