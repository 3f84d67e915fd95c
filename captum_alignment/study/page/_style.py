"""How figures look: colours that stay apart for colour-blind readers, one font, and texts that fit."""

from collections.abc import Sequence
from functools import cache
from os.path import commonprefix
from typing import Any

from matplotlib.axis import Axis
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import PercentFormatter

#: Okabe and Ito's colours, which stay apart for colour-blind readers; markers tell the curves apart in grey.
INK, MUTED, FAINT = "#1c1c1c", "#6b6b6b", "#d9d9d9"
VERMILION, BLUE, GREEN, PINK, ORANGE = "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00"
_FONT = "DejaVu Sans"  # comes with matplotlib: figures look the same everywhere
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": _FONT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "figure.dpi": 160,
    "savefig.facecolor": "white",
}
WIDTH = 7.2
_COLORS = (INK, VERMILION, BLUE, GREEN, PINK, ORANGE)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)))
_MARKERS = ("o", "s", "^")


def run_style(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of a run, the marker at the end of its curve: 18 that differ."""
    turn = number // len(_COLORS) % len(_DASHES)
    color = _COLORS[number % len(_COLORS)]
    return {"color": color, "ls": _DASHES[turn], "marker": _MARKERS[turn], "ms": 4, "markevery": [-1]}


def percent_axis(axis: Axis) -> None:
    """Ticks of shares in percent, as the texts write it, with as many decimals as tell them apart."""
    axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def labels(names: Sequence[str], limit: int = 24) -> list[str]:
    """Names as `plain` shows them, still different from each other where they are too long."""
    found = [plain(name, limit) for name in names]
    if len(set(found)) == len(found):
        return found
    # Without what they begin and end with in common, as far as there is no room for it.
    start = len(commonprefix(names))
    end = len(commonprefix([name[start:][::-1] for name in names]))
    room = max(0, limit - 2 - (max(map(len, names)) - start - end))
    start, end = max(0, start - room // 2), max(0, end - (room - room // 2))
    inner = [("…" if start else "") + name[start : len(name) - end] + ("…" if end else "") for name in names]
    found = [plain(name, limit) for name in inner]
    if len(set(found)) == len(found):
        return found
    return [f"{number} {plain(name, limit - 3)}" for number, name in enumerate(names, 1)]


def plain(text: Any, limit: int = 24) -> str:
    """A user's text as matplotlib shows it literally, on one line, with its start and its end where it is too long."""
    found = "".join(letter if _has(letter) else "?" for letter in " ".join(str(text).split()))
    if len(found) > limit:
        found = found[: limit // 2] + "…" + found[limit // 2 + 1 - limit :]
    # An even number of dollars would be a formula, and a legend leaves out what begins with an underscore.
    return (" " if found.startswith("_") else "") + found.replace("$", r"\$")


@cache
def _has(letter: str) -> bool:
    return get_font(findfont(FontProperties(family=_FONT))).get_char_index(ord(letter)) > 0
