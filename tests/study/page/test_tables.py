import numpy as np
import pandas as pd

from captum_alignment.study.page import Column, Table, count, percent
from captum_alignment.study.page._tables import exact

FRAME = pd.DataFrame(
    {
        "run": ["a", "b"],
        "n": [1234, 2],
        "rho": [0.123456789, np.inf],
        "rho_low": [-0.1, np.nan],
        "rho_high": [0.2, np.inf],
    }
)


def test_cells_show_what_a_reader_reads_and_hold_what_is_computed_with():
    table = Table("t", "a table", FRAME, (Column("run", "run", str), Column("n", "samples", count), Column("rho", "ρ")))
    first, second = ([(cell.text, cell.note, cell.values) for cell in cells] for _, cells in table.rows())
    assert first == [
        ("a", "", ("a",)),
        ("1,234", "", ("1234",)),
        ("0.123", "−0.100 to 0.200", ("0.1234568", "-0.1", "0.2")),
    ]
    assert second[2] == ("∞", "", ("Infinity", "", "Infinity"))
    assert [names for _, names in table.heads()] == [("run",), ("n",), ("rho", "rho_low", "rho_high")]


def test_marked_rows_and_names_of_their_own_in_the_csv():
    table = Table("t", "a table", FRAME, (Column("rho", "ρ", percent, csv="share"),), frozenset({1}))
    assert [marked for marked, _ in table.rows()] == [False, True]
    assert [names for _, names in table.heads()] == [("share", "share_low", "share_high")]


def test_exact_values_and_shares():
    assert [exact(value) for value in (np.nan, -np.inf, 1e-9, 3, "x")] == ["", "-Infinity", "1e-09", "3", "x"]
    assert (percent(0.1234), percent(np.nan)) == ("12.3 %", "–")
