import torch
from torch import nn

from captum_alignment.study.evaluation import EvaluationConfig, _plan
from captum_alignment.study.evaluation._plan import make_plan

NET = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()


def data(n: int = 10, size: tuple[int, ...] = (3, 2, 2)) -> torch.Tensor:
    return torch.rand(n, *size, generator=torch.Generator().manual_seed(0))


def test_groups_are_far_apart_and_parts_cut_them_in_their_order(monkeypatch):
    monkeypatch.setattr(_plan, "_GROUP", 4)
    groups = [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    for size, parts in ((None, groups), (4, groups), (3, [[0, 3, 6], [9, 1, 4], [7, 2], [5, 8]]), (9, None)):
        plan = make_plan(NET, data(), EvaluationConfig(part_size=size))
        found = [plan.part(number) for number in range(plan.parts)]
        assert sorted(index for part in found for index in part) == list(range(10))
        assert parts is None or found == parts
        assert [plan.group(number) for number in range(plan.groups)] == groups
        assert all(plan.group_of(index) == number for number, group in enumerate(groups) for index in group)
    assert len(found) == 2


def test_attacks_are_resolved_once_and_named_in_the_manifest(tmp_path):
    file = tmp_path / "own.py"
    file.write_text("def away(model, x, y):\n    return x\n")
    plan = make_plan(NET, data(), EvaluationConfig(attacks=["deepfool", "thorough", f"{file}:away"]))
    assert list(plan.config.attacks) == ["deepfool", "rival-search", "hop-skip-jump", "away"]
    lines = plan.manifest["attacks"]
    assert lines[0].startswith("deepfool: DeepFool(")
    assert lines[1:] == ["thorough", "away: away()"]


def test_the_manifest_tells_models_and_settings_apart():
    plain = make_plan(NET, data(), EvaluationConfig()).manifest
    assert plain["size"] == plain["of"] == 10
    assert plain["shape"] == [3, 2, 2]
    assert plain["part size"] == 100
    other = make_plan(NET, data(), EvaluationConfig(subset=5, seed=3, norm=float("inf"), candidates=2)).manifest
    changed = {key for key in plain if plain[key] != other[key]}
    assert changed == {"size", "seed", "norm", "candidates"}
    # A model of other weights, and one without a state.
    torch.manual_seed(1)
    again = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()
    assert make_plan(again, data(), EvaluationConfig()).manifest["weights"] != plain["weights"]
    assert "function" in make_plan(lambda x: NET(x), data(), EvaluationConfig()).manifest["weights"]


def test_large_images_have_smaller_parts():
    large = nn.Sequential(nn.AdaptiveAvgPool2d(2), *NET).eval()
    assert make_plan(large, data(2, (3, 65, 65)), EvaluationConfig()).manifest["part size"] == 32
    assert make_plan(large, data(2, (3, 65, 65)), EvaluationConfig(part_size=7)).manifest["part size"] == 7
