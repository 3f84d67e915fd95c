import base64
import hashlib
import html as entities
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.compare import _coordinates, report, write_runs_report
from captum_alignment.study.compare._summary import by_class, summarise_runs
from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import number
from tests.study.compare.test_pictures import NAMES
from tests.study.pages import Page, table
from tests.study.runs import changed, frame, make_gallery, make_run, with_errors

MARKUP = "<img src=x onerror=alert(1)>&\"'"
ALL = np.ones(40, dtype=bool)


def some_runs() -> list[Run]:
    """Two runs whose medians are ordered otherwise as numbers than as texts, one of them with every kind of markup."""
    odd = make_run("=" + MARKUP, scale=12, classes=[MARKUP, "=1+1", "-2"], dataset=MARKUP, attacks=["ddn"])
    odd = changed(odd, id=[MARKUP] * 40)
    return [with_errors(odd, np.arange(40) < 25, MARKUP), make_run("b, c", seed=1, scale=7), make_run("d", seed=2)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, list[Run]]:
    """The report of `some_runs`, and these."""
    folder = tmp_path_factory.mktemp("odd")
    runs = some_runs()
    write(folder, runs)
    return folder / "report.html", runs


def write(folder: Path, runs: list[Run]) -> str:
    write_runs_report(folder / "report.html", runs)
    return (folder / "report.html").read_text("utf-8")


def test_every_user_text_is_escaped_and_nothing_is_loaded_from_elsewhere(odd):
    html = odd[0].read_text("utf-8")
    page = Page(html)
    assert "<img src=x" not in html
    assert page.text.count(MARKUP) > 25  # name, class, data set, id and reason
    assert not any(name.startswith("on") or name in ("href", "style") for _, found in page.tags for name in found)
    sources = [found["src"] or "" for tag, found in page.tags if tag == "img"]
    assert len(sources) == len({*NAMES, "terms"}) + 2 * 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "http" not in html.replace("http-equiv", "")


def test_the_policy_allows_this_one_script(tmp_path):
    html = write(tmp_path, [make_run()])
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(found["content"] or "" for tag, found in Page(html).tags if "http-equiv" in found)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_tables_hold_the_summary(odd):
    path, runs = odd
    html, summary = path.read_text("utf-8"), summarise_runs(runs)
    for name in ("summary", "split", "correlations", "distances"):
        found = table(html, name)
        assert found["run"].tolist() == [run.name for run in runs]
        numbers = found.drop(columns="run").replace("", "nan").astype(float)
        np.testing.assert_allclose(numbers, summary[numbers.columns].astype(float), rtol=1e-6)
    for median in summary["distance"]:
        assert f">{number(median)}<small>" in html
    for position, run in enumerate(runs, 1):
        assert table(html, f"classes-{position}")["n"].astype(int).tolist() == by_class(run)["n"].tolist()
    assert table(html, "robust-accuracy").columns[1:].tolist() == [
        f"{run.name}{of}{end}" for run in runs for of in ("", ", certified") for end in ("", "_low", "_high")
    ]


def test_differing_settings_are_marked(odd):
    html = odd[0].read_text("utf-8")
    rows = html.partition('<table id="settings"')[2].partition("</table>")[0].split("<tr")[2:]
    marked = [row for row in rows if row.startswith(' class="marked"')]
    assert [re.findall(r">([^<]*)</td>", row)[0] for row in marked] == ["dataset", "attacks", "classes"]


def test_errors_are_listed_with_their_reasons(tmp_path):
    html = write(tmp_path, [with_errors(make_run("a"), ALL), make_run("b")])
    assert html.count("<li><b>image") == 20
    assert "OSError: cut short" in html
    assert "and 20 more" in html
    assert "40 of 40 samples of a could not be measured" in html


@pytest.mark.parametrize(
    "run",
    [
        with_errors(make_run(), ALL),
        changed(make_run(), label=pd.array([pd.NA] * 40, dtype="Int64")),
        changed(make_run(), distance=np.inf, linearized_robustness=np.inf),
        make_run(n=1),
    ],
    ids=["all errors", "unlabelled", "infinite", "one sample"],
)
def test_a_report_of_one_odd_run(run, tmp_path):
    assert "Robustness and saliency alignment of mlp" in write(tmp_path, [run])


def test_a_run_with_no_more_than_samples(tmp_path):
    run = make_run("bare")
    bare = Run("bare", {}, frame(run).loc[:, ["sample", "id", "error", "distance"]], {})
    html = write(tmp_path, [bare])
    assert "What the networks look at" not in html
    assert "no rows" in html


def test_runs_of_one_name_are_told_apart(tmp_path):
    assert table(write(tmp_path, [make_run("a"), make_run("b"), make_run("a")]), "summary")["run"].tolist() == [
        *("a (1)", "b", "a (2)")
    ]


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="runs: got none"):
        write_runs_report(tmp_path / "report.html", [])


def test_the_report_of_folders_lies_in_a_single_one_or_where_it_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(_coordinates, "read_run", lambda folder: make_run(Path(folder).name))
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert report(["a"]) == Path("a/report.html")
    assert report(["a", "b"]) == Path("report.html")
    assert report([tmp_path / "a"], out="other/name.html") == Path("other/name.html")
    assert all(Path(name).is_file() for name in ("a/report.html", "report.html", "other/name.html"))
    with pytest.raises(ValueError, match="runs: got none"):
        report([])


def test_the_gallery_names_its_samples(tmp_path):
    html = entities.unescape(write(tmp_path, [make_run("a")]))
    assert "The least robust samples of a: image 0, image 1." in html
    assert "The most robust samples of a: image 38, image 39." in html


def test_samples_that_were_chosen_are_shown(tmp_path):
    run = make_run("a")
    gallery = {**run.gallery, "kind": np.full(4, "shown")}
    html = entities.unescape(write(tmp_path, [Run(run.name, run.manifest, run.records, gallery)]))
    assert "Chosen samples of a: image 0, image 1, image 38, image 39." in html


def test_a_thousand_classes_scroll_in_their_box(tmp_path):
    html = write(tmp_path, [make_run(n=4000, count=1000, classes=[f"class {i}" for i in range(1000)])])
    assert len(table(html, "classes-1")) > 900
    assert html.count('<div class="scroll tall"') == 1
    assert len(html) < 3e6


@pytest.mark.slow
def test_a_hundred_thousand_samples_are_light(tmp_path):
    run = make_run(n=100_000, count=1000)
    columns = {f"bias:layer{i}": np.random.default_rng(i).normal(size=100_000) for i in range(160)}
    rng = np.random.default_rng(0)
    records = pd.concat([frame(run), pd.DataFrame(columns)], axis=1)
    run = Run(run.name, run.manifest, records, make_gallery(rng, 100_000, 6, 3, 32))
    start = time.perf_counter()
    html = write(tmp_path, [run])
    assert time.perf_counter() - start < 60
    assert len(html) < 3e6


def test_the_report_prints_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_runs_report("report.html", [make_run("a")], command="captum-alignment evaluate --data 'a b'")
    assert "<code>captum-alignment evaluate --data &#39;a b&#39;</code>" in (tmp_path / "report.html").read_text(
        "utf-8"
    )
    write_runs_report("report.html", [make_run("a")])
    assert "<code>captum-alignment" not in (tmp_path / "report.html").read_text("utf-8")
