"""What holds of every figure of a report."""

import re

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def faults(figure) -> list[str]:
    """Axes of numbers without a quantity, titles on each other, text beyond the edge, and percent written otherwise."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, found = canvas.get_renderer(), []
    everywhere = {"x": figure._supxlabel, "y": figure._supylabel}
    for axes in figure.axes:
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            ticks = [tick.label1.get_text() for tick in axis.get_major_ticks() if tick.label1.get_visible()]
            numbers = any(re.fullmatch(r"[−\d.e+-]+( %)?", text) for text in ticks)
            titled = name == "y" and axes.get_title(loc="left")
            if numbers and not (axis.get_label_text() or everywhere[name] or titled):
                found.append(f"no label: {name} of {axes.get_title(loc='left')!r}")
            around = axis.get_tightbbox(renderer)
            if around is not None and not _inside(around, figure.bbox):
                found.append(f"cut: {name} of {axes.get_title(loc='left')!r}")
            beside = axis.get_offset_text()
            if beside.get_text() and beside.get_window_extent(renderer).overlaps(
                axis.label.get_window_extent(renderer)
            ):
                found.append(f"on its label: {beside.get_text()!r}")
        left, right = axes.get_title(loc="left"), axes.get_title(loc="right")
        boxes = [title.get_window_extent(renderer) for title in (axes._left_title, axes._right_title)]
        if right and not left.endswith("\n") and boxes[0].overlaps(boxes[1]):
            found.append(f"on each other: {left!r} and {right!r}")
    ticks = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()}
    for text in figure.findobj(Text):
        box = text.get_window_extent(renderer)
        if text not in ticks and text.get_text().strip() and text.get_visible() and not _inside(box, figure.bbox):
            found.append(f"cut: {text.get_text()!r}")
        if re.search(r"\d%", text.get_text()):
            found.append(f"percent: {text.get_text()!r}")
    return found


def _inside(box, outer) -> bool:
    return box.x0 >= -1 and box.y0 >= -1 and box.x1 <= outer.x1 + 1 and box.y1 <= outer.y1 + 1
