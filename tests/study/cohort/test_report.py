import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.cli._main import _parser
from captum_alignment.study.cli._options import chosen, some
from captum_alignment.study.cohort import StudyConfig, Verdict, make_config
from captum_alignment.study.cohort._claims import CLAIMS, basis, verdicts
from captum_alignment.study.cohort._cohort import make_cohorts
from captum_alignment.study.cohort._report import StudyResult, drawn_groups, reproduce, write_study_report
from captum_alignment.study.compare import summarise_runs
from tests.study.compare.test_pictures import NAMES
from tests.study.pages import Page, table
from tests.study.runs import cohort_of, make_records, runs_of

TWO = pd.concat([make_records(seeds=(0, 1)), make_records((0.1, 0.4), seeds=(0, 1), training="pgd-l2", seed=1)])


def render(folder, records, **options) -> str:
    runs, trainings = runs_of(records), [name for name in records["training"].unique() if name != "standard"]
    cohorts, configs = make_cohorts(runs, trainings), [make_config(regularizer=name, **options) for name in trainings]
    found = [*(verdict for cohort in cohorts for verdict in verdicts(cohort))]
    found.append(Verdict("<script>x</script>", "Fig.", "supported", "", trainings[0]))
    result = StudyResult(records, summarise_runs(runs), found, basis(cohorts), folder / "report.html")
    write_study_report(result, configs, runs, cohorts, 1297, "captum-alignment study --data-root '<b>'")
    return result.report.read_text("utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return render(tmp_path_factory.mktemp("page"), make_records(accuracy=(1, 1, 0.5, 0.1)))


def test_text_is_escaped_and_nothing_is_loaded_from_elsewhere(page):
    found = Page(page)
    assert "<script>x</script>" in found.text
    assert "captum-alignment study --data-root '<b>'" in found.text
    assert [tag for tag, _ in found.tags].count("script") == 1  # of the tables
    assert not {tag for tag, _ in found.tags} & {"link", "iframe", "a"}
    sources = [attributes["src"] or "" for tag, attributes in found.tags if tag == "img"]
    assert len(sources) == 2 + len({*NAMES, "terms"})
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert all(attributes.get("alt") for tag, attributes in found.tags if tag == "img")


def test_the_tables_are_those_of_runs_and_can_be_sorted_and_saved(page):
    summary = summarise_runs(runs_of(make_records(accuracy=(1, 1, 0.5, 0.1))))
    for name in ("summary", "split", "correlations", "distances"):
        found = table(page, name)
        assert found["run"].tolist() == summary["run"].tolist()
        for column in found.columns[1:].drop("training", errors="ignore"):
            np.testing.assert_allclose(found[column].replace("", "nan").astype(float), summary[column], rtol=1e-6)
    assert table(page, "summary")["training"].tolist() == ["standard", *["lipschitz"] * 3]
    assert table(page, "levels")["usable"].tolist() == ["", "", "left out", "left out"]


def test_claims_of_a_single_training_name_their_figure_and_evidence(page):
    found = verdicts(cohort_of(make_records(accuracy=(1, 1, 0.5, 0.1))))
    assert page.count('class="chip ') == len(found) + 1
    text = " ".join(Page(page).text.split())
    assert all(verdict.evidence in text for verdict in found)
    assert "Fig. 2 (MNIST) of the paper" in text
    assert "one training seed" in text


def test_several_trainings_are_compared_claim_by_claim(tmp_path):
    html = render(tmp_path, TWO, seeds=2)
    body = html.partition('<table id="verdicts">')[2].partition("</table>")[0]
    assert body.count("<tr>") == 1 + len(CLAIMS) + 1
    assert body.count('class="chip ') == 2 * len(CLAIMS) + 1
    assert table(html, "levels")["training"].tolist() == ["lipschitz"] * 4 + ["pgd-l2"] * 3
    assert len(table(html, "summary")) == 8 + 4
    assert "standard-0_seed-0" not in html
    assert "of 12 networks" not in html
    assert "Tables below have all 12 networks" in " ".join(Page(html).text.split())
    assert (tmp_path / "figures" / "alignment.png").read_bytes().startswith(b"\x89PNG")
    eps = table(html, "robust-accuracy")
    assert eps.shape[1] == 1 + 3 * 3  # plain, and the most robust of each training


def test_drawn_are_all_networks_of_one_training_and_the_most_robust_of_several():
    runs = runs_of(make_records(seeds=(0, 1)))
    groups = drawn_groups(runs, make_cohorts(runs, ["lipschitz"]))
    assert [[run.name for run in group] for group in groups][1] == ["lipschitz-0.1_seed-0", "lipschitz-0.1_seed-1"]
    assert len(groups) == 4
    runs = runs_of(TWO)
    groups = drawn_groups(runs, make_cohorts(runs, ["lipschitz", "pgd-l2"]))
    assert [group[0].config["strength"] for group in groups] == [0, 10, 0.4]


def test_infinite_medians_are_shown_as_such(tmp_path):
    records = make_records()
    records.loc[records["strength"] == 1.0, ["distance", "distance_ddn"]] = np.inf
    assert "∞" in Page(render(tmp_path, records)).text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strengths": (0.0, 0.001), "eval_size": None, "attacks": ("ddn", "gradient")},
        {"dataset": "mnist", "seeds": 3, "train_size": None},
        {"preset": "etmann-mnist", "epochs": 2},
        {"preset": "etmann-mnist", "decay_every": None, "seeds": 2},
        {"preset": "etmann-mnist", "dataset": "fashion-mnist"},
        {"optimizer": "sgd", "learning_rate": 0.01, "augment": True},
        {"regularizer": "pgd-l2", "seed": 4},
    ],
)
def test_the_command_in_the_report_gives_the_configuration(options):
    config, where = make_config(**options), {"data_root": "a b/<c>", "download": True}
    given = vars(_parser().parse_args(shlex.split(reproduce([config], Path("x y"), **where))[1:]))
    assert (given["out"], given["data_root"], given["download"]) == (Path("x y"), Path(where["data_root"]), True)
    found = {**some(given, "preset"), **chosen(StudyConfig, given)}
    (found["regularizer"],) = found.get("regularizer", ("lipschitz",))
    assert make_config(**found) == config


def test_the_command_of_several_trainings_is_given_where_there_is_one():
    configs = [make_config(regularizer=name, epochs=3) for name in ("lipschitz", "pgd-l2")]
    words = reproduce(configs, Path("x")).split()[4:]
    assert words == ["--regularizer", "lipschitz", "pgd-l2", "--epochs", "3", "--out", "x"]
    assert reproduce([configs[0], make_config(regularizer="pgd-l2", epochs=3, strengths=(0.7,))], Path("x")) == ""
