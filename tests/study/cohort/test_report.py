from html.parser import HTMLParser

import numpy as np
import pytest

from captum_alignment.study.cli._main import _parser
from captum_alignment.study.cli._options import chosen, some
from captum_alignment.study.cohort import StudyConfig, Verdict, make_config
from captum_alignment.study.cohort._claims import basis, verdicts
from captum_alignment.study.cohort._cohort import cohort_of, shown_models, summarise
from captum_alignment.study.cohort._figures import alignment_figure, cohort_figure, scatter_figure
from captum_alignment.study.cohort._report import Picture, reproduce, write_report
from captum_alignment.study.page import gallery_figure, number
from tests.study.conftest import make_records

PICTURES = ("alignment", "cohort", "linearized_alignment", "linearized_distance", "split", "terms", "linearity")


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def render(path, records, **options) -> Page:
    cohort = cohort_of(records)
    png = path / "figure.png"
    png.write_bytes(b"\x89PNG")
    picture = Picture(png, "a <caption>", "alt")
    write_report(
        path / "report.html",
        config=make_config(**options),
        verdicts=[*verdicts(cohort), Verdict("<script>x</script>", "Fig.", "supported", "")],
        basis=basis(cohort),
        summary=summarise(cohort),
        pictures=dict.fromkeys(PICTURES, picture),
        galleries=[picture, picture],
        train_size=1297,
        eval_size=60,
    )
    return Page((path / "report.html").read_text("utf-8"))


def test_text_is_escaped_and_nothing_is_loaded_from_elsewhere(tmp_path):
    page = render(tmp_path, make_records())
    assert "<script>x</script>" in page.text
    assert "a <caption>" in page.text
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "caption"}
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == len(PICTURES) + 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any("href" in attributes for _, attributes in page.tags)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_collapsed_models_are_labelled_in_every_table(tmp_path):
    page = render(tmp_path, make_records(accuracy=(1, 1, 0.5, 0.1)))
    assert [attributes for tag, attributes in page.tags if tag == "tr"].count({"class": "left-out"}) == 2 * 4


def test_one_seed_is_said_and_several_have_a_column(tmp_path):
    page = render(tmp_path, make_records())
    assert "one training seed" in page.text
    assert "<th>seed</th>" not in (tmp_path / "report.html").read_text("utf-8")
    page = render(tmp_path, make_records(seeds=(0, 1)), seeds=2)
    assert "2 training seeds" in page.text
    assert (tmp_path / "report.html").read_text("utf-8").count("<th>seed</th>") == 4


def rows(path, table: str) -> list[str]:
    """The text of each model's row in one of the tables."""
    html = (path / "report.html").read_text("utf-8")
    body = html.partition(f'<table id="{table}">')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(Page(row.replace("<", " <")).text.split()) for row in body.split("<tr")[1:]]


def test_the_diagnosis_is_that_of_the_records(tmp_path):
    records = make_records(strengths=(0.0, 1.0))
    records.loc[records["sample"] < 40, "bias_gap"] = 9.0
    render(tmp_path, records)
    summary = summarise(cohort_of(records))
    for row, model, (_, group) in zip(
        rows(tmp_path, "split"), summary.to_dict("records"), records.groupby("strength"), strict=True
    ):
        cells = ["linearized_robustness", "alignment", "direction_gap", "bias_gap"]
        assert [number(group[name].median()) in row for name in [*cells, "bound"]] == [True] * 5
        low, high = number(model["direction_gap_low"]), number(model["direction_gap_high"])
        assert f"{low} to {high}" in row
        larger = int((group["bias_gap"].abs() > group["direction_gap"].abs()).sum())
        assert larger >= 40
        assert f"bias on {larger} of 60" in row
    assert "upper bound" in (tmp_path / "report.html").read_text("utf-8")
    for row, (_, group) in zip(rows(tmp_path, "linearity"), records.groupby("strength"), strict=True):
        assert number(group["deviation"].median()) in row
        assert number(group["alignment"].corr(group["distance"], "spearman")) in row


def test_infinite_medians_are_shown_as_such(tmp_path):
    records = make_records()
    records.loc[records["strength"] == 1.0, ["distance", "distance_ddn"]] = np.inf
    assert "∞" in render(tmp_path, records).text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strengths": (0.0, 0.001), "eval_size": None, "attacks": ("ddn", "gradient")},
        {"dataset": "mnist", "seeds": 3, "train_size": None},
        {"preset": "etmann-mnist", "epochs": 2},
        {"preset": "etmann-mnist", "decay_every": None, "seeds": 2},
        {"optimizer": "sgd", "learning_rate": 0.01, "augment": True},
    ],
)
def test_the_command_in_the_report_gives_the_configuration(options):
    config = make_config(**options)
    given = vars(_parser().parse_args([*reproduce(config).split()[1:], "--out", "x"]))
    found = {**some(given, "preset"), **chosen(StudyConfig, given)}
    assert make_config(**found) == config


def test_figures_mark_what_is_left_out():
    cohort = cohort_of(make_records(accuracy=(1, 1, 1, 0.1)))
    texts = [text.get_text() for axes in cohort_figure(cohort).axes for text in axes.texts]
    assert "grey: left out" in texts
    panels = scatter_figure(cohort, "linearized_alignment").axes
    assert [axes.get_title(loc="right") == "left out" for axes in panels] == [False, False, False, True]
    labels = [text.get_text() for text in alignment_figure(cohort).legends[0].get_texts()]
    assert {"ρ, smallest over attacks", "ρ̃, linearized", "gradient attack", "DDN"} <= set(labels)


def test_figures_survive_infinite_medians_and_a_single_model(tmp_path):
    records = make_records(strengths=(0.5,))
    records["distance_ddn"] = np.inf
    cohort = cohort_of(records)
    for figure in (cohort_figure(cohort), alignment_figure(cohort), scatter_figure(cohort, "linearized_distance")):
        figure.savefig(tmp_path / "figure.png")


def test_the_gallery_shows_the_least_and_the_most_robust_usable_model():
    records = make_records(seeds=(0, 1), accuracy=(1, 1, 1, 0.1))
    records.loc[(records["strength"] == 0.1) & (records["training_seed"] == 1), "distance"] += 9
    assert shown_models(cohort_of(records))[1] == (1, 1)
    assert shown_models(cohort_of(records))[0][0] == 0
    assert shown_models(cohort_of(make_records(strengths=(0.0,)))) == [(0, 0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_figure_names_rival_and_distance(channels):
    rng = np.random.default_rng(0)
    names = ("image", "gradient", "binarized_gradient", "adversarial")
    maps = {name: rng.uniform(0, 1, (2, channels, 8, 8)) for name in names}
    row = {"label": 0, "prediction": 0, "rival": 1, "alignment": 1.0, "linearized_robustness": 0.5, "distance": 0.25}
    figure = gallery_figure(maps, [row, {**row, "label": 1, "distance": np.inf}], ("cat", "dog"))
    captions = [axes.get_xlabel() for axes in figure.axes]
    assert captions[:4] == ["cat", "α = 1.00", "vs dog, ρ̃ = 0.50", "ρ = 0.25"]
    assert (captions[4], captions[7]) == ("cat (is dog)", "none found")
