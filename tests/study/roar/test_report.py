import torch

from captum_alignment.study.roar._grid import Cell
from captum_alignment.study.roar._report import write_roar_report
from tests.study.pages import Page
from tests.study.roar.test_summary import ACCURACY, make_cells


def write(folder, cells, channels=1):
    image = torch.rand(channels, 8, 8)
    examples = {
        Cell(mode, method, fraction, 0): image
        for (mode, method), curve in ACCURACY.items()
        for fraction in curve
        if mode in cells["mode"].to_numpy() and mode != "unmodified"
    }
    config = {
        "model": "<b>net</b>",
        "train": 1000,
        "test": 100,
        "absolute": False,
        "decay_every": None,
        "train data": "ab",
    }
    folder.mkdir()
    write_roar_report(folder / "report.html", cells, config, image, examples)
    return (folder / "report.html").read_text("utf-8")


def test_the_report_has_both_modes_every_method_and_is_escaped(tmp_path):
    html = write(tmp_path / "<i>mine", make_cells((0, 1, 2), spread=0.01))
    Page(html)
    for text in ("ROAR: replaced by the mean", "KAR: kept, the rest replaced", "good", "random", "10.0 %", "3 seeds"):
        assert text in html
    assert "&lt;b&gt;net" in html
    assert "<i>mine" not in html
    assert "<dt>train data</dt>" not in html
    assert html.count("<img") == 3


def test_one_seed_and_one_mode_say_so(tmp_path):
    cells = make_cells()
    html = write(tmp_path / "one", cells[cells["mode"] != "kar"], channels=3)
    assert "With a single seed there is no interval of the area" in html
    assert "one training; its bar" in html
    assert "KAR" not in html


def test_networks_that_beat_whole_images_are_named(tmp_path):
    cells = make_cells((0, 1, 2))
    assert "More accurate than on whole images" not in write(tmp_path / "no", cells)
    told = (cells["mode"] == "kar") & (cells["method"] == "good")
    cells.loc[told, "accuracy"] = 0.99
    assert "More accurate than on whole images: good (KAR)." in write(tmp_path / "yes", cells)
