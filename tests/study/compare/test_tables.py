from captum_alignment.study.compare._coordinates import first_of_groups
from captum_alignment.study.compare._summary import by_class, summarise_runs
from captum_alignment.study.compare._tables import class_table, summary_tables
from tests.study.runs import make_run


def cells(table) -> list[list[str]]:
    return [[cell.text for cell in row] for _, row in table.rows()]


def test_coordinates_stand_beside_the_runs_that_have_them():
    runs = [make_run("a", training="pgd-l2", strength=0.5, training_seed=3), make_run("b")]
    found = summary_tables(runs, summarise_runs(runs), [[run] for run in runs])["summary"]
    assert [row[:4] for row in cells(found)] == [["a", "pgd-l2", "0.5", "3"], ["b", "", "–", "–"]]
    plain = summary_tables(runs[1:], summarise_runs(runs[1:]), [runs[1:]])["summary"]
    assert "training" not in {column.name for column in plain.columns}


def test_robust_accuracy_has_a_column_for_each_group():
    runs = [make_run(name, seed=seed) for seed, name in enumerate("abc")]
    runs[2].records["lower_bound"] = float("nan")  # which was not certified  # pyright: ignore
    found = summary_tables(runs, summarise_runs(runs), [runs[:2], runs[2:]])["robust-accuracy"]
    assert [column.head for column in found.columns] == ["ε", "a", "a, certified", "c"]


def test_what_is_a_mean_over_seeds_says_so():
    groups = [
        [make_run(training="pgd-l2", strength=0.5, training_seed=seed, seed=seed) for seed in (0, 1)],
        [make_run(training="standard", strength=0.0, training_seed=seed, seed=seed) for seed in (0, 1)],
        [make_run("alone", training="standard", strength=0.0, training_seed=0)],
    ]
    assert [run.name for run in first_of_groups(groups)] == ["pgd-l2 0.5, 2 seeds", "standard, 2 seeds", "alone"]


def test_classes_are_named_where_they_have_names():
    named, plain = make_run(classes=["cat", "dog", "owl"]), make_run()
    assert [column.head for column in class_table(named, 1).columns][:3] == ["class", "name", "samples"]
    assert [column.head for column in class_table(plain, 1).columns][:2] == ["class", "samples"]
    assert [row[0] for row in cells(class_table(plain, 1))] == [str(index) for index in by_class(plain)["class"]]
