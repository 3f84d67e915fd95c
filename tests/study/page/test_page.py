import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from captum_alignment.study.page import picture, write_page
from tests.study.pages import Page


def test_a_picture_is_a_png_inside_the_page():
    shown = picture(Figure(figsize=(1, 1)), "what <it> shows")
    assert shown.image.startswith(b"\x89PNG")
    assert shown.uri.startswith("data:image/png;base64,iVBOR")
    assert len(picture(Figure(figsize=(1, 1)), "", dpi=40).image) <= len(shown.image)


def test_what_a_template_lacks_is_no_silent_gap(tmp_path):
    with pytest.raises(UndefinedError):
        write_page(tmp_path / "page.html", "roar.html.jinja", name="a")
    assert not list(tmp_path.iterdir())


def test_the_base_forbids_everything_from_elsewhere(tmp_path):
    write_page(tmp_path / "page.html", "base.html.jinja")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    policy = next(found["content"] or "" for tag, found in page.tags if "http-equiv" in found)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "Written by captum-alignment on" in page.text
