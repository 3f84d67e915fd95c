from pathlib import Path

from captum_alignment.study.cohort._members import Member, make_members


def test_members_are_every_strength_with_every_seed():
    names = [member.name for member in make_members({"lipschitz": (0.3, 0.0)}, (5, 6))]
    assert names == ["standard_seed-5", "standard_seed-6", "lipschitz-0.3_seed-5", "lipschitz-0.3_seed-6"]


def test_trainings_share_their_plain_networks():
    members = make_members({"pgd-l2": (0.5, 0.1), "lipschitz": (0.0, 1.0), "jacobian": (0.0,)}, (0,))
    assert members == [
        Member("standard", 0.0, 0),
        Member("pgd-l2", 0.1, 0),
        Member("pgd-l2", 0.5, 0),
        Member("lipschitz", 1.0, 0),
    ]


def test_files_and_coordinates_say_which_network_it_is():
    member = Member("pgd-l2", 0.25, 3)
    assert member.coordinates == {"training": "pgd-l2", "strength": 0.25, "training_seed": 3}
    assert member.weights_file(Path("a")) == Path("a/models/pgd-l2-0.25_seed-3.pt")
    assert member.evaluation_folder(Path("a")) == Path("a/evaluations/pgd-l2-0.25_seed-3")
