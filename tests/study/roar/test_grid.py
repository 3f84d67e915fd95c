import pytest

from captum_alignment.study.roar._grid import UNMODIFIED, Cell, make_grid, missing_cells, read_cells, write_cell

GRID = make_grid(("saliency", "my own, 2"), (0.2, 0.5), ("roar", "kar"), (0, 3))


def test_every_seed_has_its_unmodified_cell_first():
    assert len(GRID) == len(set(GRID)) == 2 * (1 + 2 * 2 * 2)
    assert [cell for cell in GRID if cell.mode == UNMODIFIED] == [GRID[0], GRID[9]]
    assert [cell.seed for cell in GRID] == [0] * 9 + [3] * 9


def test_cells_are_files_of_their_own(tmp_path):
    assert len({cell.file(tmp_path) for cell in GRID}) == len(GRID)
    for cell in GRID[:4]:
        write_cell(tmp_path, cell, {"accuracy": 0.5})
    assert missing_cells(tmp_path, GRID) == GRID[4:]
    found = read_cells(tmp_path, GRID[:4])
    assert found["method"].tolist() == [cell.method for cell in GRID[:4]]
    assert found["accuracy"].tolist() == [0.5] * 4


def test_names_say_what_a_cell_is():
    assert Cell("kar", "saliency", 0.25, 1).name == "kar_saliency_0.25_seed-1"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", UNMODIFIED, "a\nb"])
def test_names_that_could_not_be_files_are_refused(name):
    with pytest.raises(ValueError, match="methods: got the name"):
        make_grid((name,), (0.5,), ("roar",), (0,))
