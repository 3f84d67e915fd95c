import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

from captum_alignment.metrics import alignment_null, linear_analysis
from captum_alignment.study.evaluation import COLUMNS, EvaluationConfig
from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._columns import place
from captum_alignment.study.evaluation._gallery import GalleryMaps
from captum_alignment.study.evaluation._plan import make_plan
from captum_alignment.study.evaluation._work import Work

torch.manual_seed(0)
NET = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Damaged:
    """The second sample cannot be read, and of the fourth the model has no scores."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int):
        if index == 1:
            raise OSError("cut short")
        return IMAGES[index], index % 3


def model(x):
    strange = (x - IMAGES[3].to(x)).flatten(1).abs().sum(1) == 0
    return torch.where(strange[:, None], torch.nan, NET(x))


def work() -> Work:
    plan = make_plan(model, Damaged(), EvaluationConfig(attacks="ddn"))
    return Work(plan, BatchSize(2, plan.model, plan.like), GalleryMaps())


def records_of(work: Work):
    ((number, records),) = work.parts([0], tqdm(disable=True))
    assert number == 0
    return records


def test_rows_are_by_sample_and_columns_by_the_schema_whatever_failed():
    frame = records_of(work())
    assert frame["sample"].tolist() == list(range(6))
    places = [place(name) for name in frame]
    assert places == sorted(places)
    assert -1 not in places
    assert [COLUMNS.field(at).name for at in places][-1] == "error"
    assert frame["error"].isna().tolist() == [True, False, True, False, True, True]
    assert frame["distance"].isna().tolist() == [False, True, False, True, False, False]


def test_the_chance_level_is_among_those_that_have_a_gradient():
    frame = records_of(work())
    kept = [0, 2, 4, 5]
    expected = alignment_null(IMAGES[kept], linear_analysis(NET, IMAGES[kept]).gradient)
    for name in ("null", "excess", "rank"):
        np.testing.assert_allclose(frame[name][kept], getattr(expected, name), rtol=1e-4, atol=1e-6)
        assert frame[name][[1, 3]].isna().all()  # pyright: ignore


def test_maps_that_are_not_at_hand_are_made_again():
    done = work()
    records = records_of(done)
    other = work()
    found = np.flatnonzero(np.isfinite(records["distance"])).tolist()
    assert found
    assert sorted(other.gallery.missing(records)) == found
    shown = other.finish_gallery(records)
    assert sorted(shown["sample"]) == found
    np.testing.assert_array_equal(shown["image"], IMAGES[shown["sample"]])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_part_is_asked_for_before_the_present_one_is_measured_where_there_are_workers(workers):
    plan = make_plan(NET, IMAGES, EvaluationConfig(attacks="gradient", part_size=2, num_workers=workers))
    asked, done = [], Work(plan, BatchSize(2, plan.model, plan.like), GalleryMaps())
    parts = done.parts((asked.append(number) or number for number in (2, 0, 1)), tqdm(disable=True))
    number, records = next(parts)
    assert number == 2
    assert records["sample"].tolist() == sorted(plan.part(2))
    assert asked == ([2, 0] if workers else [2])
    for number, records in parts:
        assert records["sample"].tolist() == sorted(plan.part(number))
    assert asked == [2, 0, 1]
