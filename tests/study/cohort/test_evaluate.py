import torch

from captum_alignment.study.cohort._evaluate import first_of_classes, join_records
from tests.study.runs import frame, make_records, runs_of


def test_the_samples_that_are_shown_are_the_first_of_their_classes():
    assert first_of_classes(torch.tensor([3, 3, 1, 0, 1, 9])) == [3, 2, 0, 5]
    assert len(first_of_classes(torch.arange(100))) == 6


def test_joined_records_have_the_coordinates_of_their_network():
    runs = runs_of(make_records(seeds=(0, 7), n=5))
    joined = join_records(runs)
    assert joined.columns[:4].tolist() == ["model", "training", "strength", "training_seed"]
    last = joined[(joined["model"] == runs[-1].name)].reset_index(drop=True)
    assert (last["strength"] == 10).all()
    assert (last["training_seed"] == 7).all()
    assert last["distance"].tolist() == frame(runs[-1])["distance"].tolist()
    assert len(joined) == 8 * 5
