"""Texts of the pages are legible: at least 4.5:1 on what they stand on, in light and in dark."""

import re

import pytest

from tests.test_examples import ROOT

CSS = (ROOT / "captum_alignment" / "study" / "page" / "templates" / "report.css").read_text("utf-8")
PAIRS = [
    *((text, ground) for text in ("ink", "soft", "faint", "accent") for ground in ("paper",)),
    *((text, ground) for text in ("ink", "faint") for ground in ("mark", "notice")),
    *[("yes", "on-yes"), ("no", "on-no"), ("perhaps", "notice"), ("soft", "unknown"), ("ink", "wash")],
]


def colours(scheme):
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", light if scheme == "light" else dark))


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_contrast(scheme, text, ground):
    known = colours(scheme)
    bright, dim = sorted((luminance(known[text]), luminance(known[ground])), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_no_colour_of_a_text_or_ground_is_written_out_elsewhere():
    rest = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert re.findall(r"(?<![-a-z])(?:color|background): #", rest) == []
