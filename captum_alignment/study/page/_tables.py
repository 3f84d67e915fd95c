"""Tables as the report shows them: each cell as a reader reads it, and as it is sorted and written to CSV."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from captum_alignment.study.page._text import fixed, number

_ENDS = ("_low", "_high")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: the frame's column; where ``<name>_low`` and ``<name>_high`` are there, they are its interval.
        head: what the reader sees above it.
        show: a value as text; str marks a column of texts.
        csv: its name in the CSV where that is another one.
    """

    name: str
    head: str
    show: Callable[[Any], str] = number
    csv: str = ""

    @property
    def text(self) -> bool:
        return self.show is str


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the small line below it, and its exact values: the first to sort by, all for the CSV."""

    text: str
    note: str
    values: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """Some columns of a frame.

    Attributes:
        id: unique in the page, and the name of the CSV file. label: what the table is, for those who cannot see it.
        marked: positions of the rows that stand out.
        tall: scrolls inside its box.
    """

    id: str
    label: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    marked: frozenset[int] = frozenset()
    tall: bool = False

    def heads(self) -> Iterator[tuple[Column, tuple[str, ...]]]:
        """Every column with the names of its values in the CSV."""
        for column in self.columns:
            name = column.csv or column.name
            yield column, (name, *(f"{name}{end}" for end in _ENDS if self._bounds(column)))

    def rows(self) -> Iterator[tuple[bool, list[Cell]]]:
        """Of every row whether it is marked, and its cells."""
        for position, record in enumerate(self.frame.to_dict("records")):
            yield position in self.marked, [self._cell(column, record) for column in self.columns]

    def _bounds(self, column: Column) -> tuple[str, ...]:
        return tuple(f"{column.name}{end}" for end in _ENDS if f"{column.name}{end}" in self.frame)

    def _cell(self, column: Column, record: dict[Any, Any]) -> Cell:
        value, bounds = record[column.name], [record[name] for name in self._bounds(column)]
        note = ""
        if bounds and not any(map(math.isnan, bounds)):
            low, high = map(column.show, bounds)
            low = low.removesuffix(" %")
            note = f"{low} to {high}" if bounds[0] < 0 else f"{low}–{high}"
        return Cell(column.show(value), note, tuple(map(exact, (value, *bounds))))


def exact(value: Any) -> str:
    """A value for sorting and CSV: seven digits, "Infinity" as browsers and pandas read it, nothing for NaN."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:.7g}".replace("inf", "Infinity")


def percent(value: Any) -> str:
    """A share in percent, with one decimal."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def points(value: Any) -> str:
    """A difference of shares in percentage points, with its sign and one decimal."""
    return fixed(100 * value, 1, sign=True)


def count(value: Any) -> str:
    """A whole number, thousands separated."""
    return f"{value:,}"
