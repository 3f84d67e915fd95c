"""The schema of the records, and what follows from it."""

import pyarrow as pa

from captum_alignment.study.compare._summary import QUANTITIES
from captum_alignment.study.evaluation import BIAS, COLUMNS, about, title
from captum_alignment.study.evaluation._columns import VERSION, column, place
from tests.test_examples import ROOT


def documented() -> list[str]:
    """The rows of the table of the docs."""
    head = ["| column | unit | what |", "|---|---|---|"]
    return head + [f"| `{f.name}` | {about(f, 'unit')} | {about(f, 'meaning')} |" for f in COLUMNS]


def test_the_table_of_the_docs_is_the_schema():
    page = (ROOT / "docs" / "evaluate.md").read_text("utf-8")
    assert [row for row in documented() if row not in page] == []
    assert "\n".join(documented()) in page
    assert f"Version {VERSION} of the columns" in page


def test_every_column_says_what_it_means_and_every_number_of_a_report_its_unit():
    for field in COLUMNS:
        assert about(field, "meaning"), field.name
        assert about(field, "unit") or not about(field, "title"), field.name
    assert len(set(COLUMNS.names)) == len(COLUMNS)


def test_members_of_a_family_have_its_place_and_meaning():
    family = COLUMNS.field(f"{BIAS}NAME")
    member = column("bias:fc.bias (add)")
    assert member is not None
    assert (member.name, member.type, member.metadata) == ("bias:fc.bias (add)", pa.float64(), family.metadata)
    assert place("bias:fc.bias") == place(f"{BIAS}NAME")
    # A whole name is never taken for a member.
    assert COLUMNS.field(place("bias")).name == "bias"
    assert COLUMNS.field(place("distance")).name == "distance"
    assert COLUMNS.field(place("margin:0.5")).name == "margin:T"
    assert COLUMNS.field(place("adversarial_margin:0.5")).name == "adversarial_margin:T"
    assert place("elsewhere") == -1
    assert column("elsewhere") is None


def test_reports_show_what_has_a_title():
    assert title("alignment") == "α"
    assert title("gap") == "gap"
    assert title("elsewhere") == "elsewhere"
    assert {"distance", "rank", "deviation"} <= set(QUANTITIES)
    assert "gap" not in QUANTITIES
