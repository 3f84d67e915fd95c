"""The report as Chromium shows it."""

import csv
import html as entities
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.evaluation import Run
from captum_alignment.study.page import number
from tests.study.compare.test_report import some_runs, write
from tests.study.pages import Page, table
from tests.study.runs import make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, list[Run]]:
    """The report of `some_runs`, and these."""
    folder, runs = tmp_path_factory.mktemp("odd"), some_runs()
    write(folder, runs)
    return folder / "report.html", runs


def chromium(path: Path, profile: Path, *options: str) -> tuple[str, list[str]]:
    """The document that Chromium makes of the page, and what its console says."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000", "--dump-dom", *options]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def with_script(html: str, script: str) -> str:
    """A copy of the page whose policy allows a test's script too."""
    html = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", html)
    return html.replace("</body>", f"<script>{script}</script></body>")


def test_chromium_shows_what_the_tables_hold_and_has_nothing_to_say(odd, tmp_path):
    html = odd[0].read_text("utf-8")
    document, console = chromium(odd[0], tmp_path)
    assert console == []
    text = Page(document.partition("<body>")[2].partition("<script>")[0]).text
    names = re.findall(r'<table id="([^"]*)"', html)
    assert text.count("Save as CSV") == len(names) == 10
    for name in names:
        pd.testing.assert_frame_equal(table(document, name), table(html, name))
    for cell in re.findall(r"<td[^>]*>([^<]*)<", html):
        assert entities.unescape(cell) in text


SORT_AND_SAVE = """
const blobs = [];
URL.createObjectURL = (blob) => (blobs.push(blob), "blob:null/0");
HTMLAnchorElement.prototype.click = function () { this.ownerDocument.title = this.download; };
const summary = document.getElementById("summary");
const column = [...summary.tHead.rows[0].cells].findIndex((head) => head.dataset.csv.includes('"distance"'));
const head = summary.tHead.rows[0].cells[column];
const shown = () => [...summary.tBodies[0].rows].map((row) => row.cells[column].firstChild.data);
const result = { before: shown() };
head.querySelector("button").click();
result.up = [head.getAttribute("aria-sort"), ...shown()];
head.querySelector("button").click();
result.down = [head.getAttribute("aria-sort"), ...shown()];
result.sorted = summary.querySelectorAll("[aria-sort]").length;
for (const table of document.querySelectorAll("table")) table.parentElement.nextElementSibling.firstChild.click();
result.file = document.title;
Promise.all(blobs.map((blob) => blob.text())).then((texts) => {
  result.csv = texts;
  document.body.textContent = JSON.stringify(result);
});
"""


def test_a_click_sorts_by_number_and_the_csv_is_the_table(odd, tmp_path):
    path, runs = odd
    html = path.read_text("utf-8")
    (tmp_path / "copy.html").write_text(with_script(html, SORT_AND_SAVE), "utf-8")
    document, console = chromium(tmp_path / "copy.html", tmp_path / "profile")
    assert console == []
    result = json.loads(Page(document.partition("<body>")[2]).text)
    order = sorted(runs, key=lambda run: np.median(run.values("distance")))
    shown = [number(np.median(run.values("distance"))) for run in order]
    assert result["before"] == [shown[2], shown[1], shown[0]]
    assert sorted(shown, key=str) != shown  # as texts they are ordered otherwise
    assert result["up"] == ["ascending", *shown]
    assert result["down"] == ["descending", *shown[::-1]]
    assert result["sorted"] == 1
    assert result["file"] == "versions.csv"
    names = re.findall(r'<table id="([^"]*)"', html)
    for name, text in zip(names, result["csv"], strict=True):
        lines = list(csv.reader(io.StringIO(text, newline="")))
        expected = table(html, name)
        if name == "summary":  # saved as it is sorted, from the largest
            expected = expected.sort_values("distance", key=lambda column: -column.astype(float))
        assert lines == [list(map(inert, expected.columns)), *([inert(v) for v in row] for row in expected.to_numpy())]
    assert any("'=1+1" in text for text in result["csv"])
    assert any(",-2," in text for text in result["csv"])


def inert(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return "'" + text if text[:1] in tuple("=+-@") and text else text
    return text


def test_a_phone_scrolls_no_page_sideways(tmp_path):
    html = write(tmp_path, [make_run("a run with a name_that_has_no_end" * 3), *some_runs()])
    tell = "parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*')"
    (tmp_path / "copy.html").write_text(with_script(html, tell), "utf-8")
    frame = '<iframe src="copy.html" width="360" height="800" style="border:0"></iframe>'
    listen = "addEventListener('message', (event) => { document.body.dataset.width = event.data; })"
    (tmp_path / "phone.html").write_text(f"<body><script>{listen}</script>{frame}</body>", "utf-8")
    document, _ = chromium(tmp_path / "phone.html", tmp_path / "profile")
    ((width, window),) = re.findall(r'data-width="(\d+),(\d+)"', document)
    assert int(width) <= int(window) == 360
