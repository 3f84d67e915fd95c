"""What every report has: one HTML file that needs nothing else, images embedded, every text escaped."""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from captum_alignment.study.page._statistics import PERCENT
from captum_alignment.study.page._text import number, short_percent
from captum_alignment.study.store import write_text

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its PNG, and what it shows, which says enough to those who cannot see it."""

    image: bytes
    caption: str

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.image).decode("ascii")


def picture(figure: Figure, caption: str, *, dpi: int = 160) -> Picture:
    """``figure`` drawn."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Picture(buffer.getvalue(), caption)


def write_page(path: Path, template: str, **content: Any) -> None:
    """Write ``template`` filled with ``content`` to ``path``."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["percent"] = short_percent
    environment.globals["level"] = PERCENT
    script, fingerprint = _script()
    today = datetime.now(timezone.utc).date().isoformat()
    html = environment.get_template(template).render(
        **content, date=today, script=script, script_hash=f"sha256-{fingerprint}"
    )
    write_text(path, html)


@cache
def _script() -> tuple[Markup, str]:
    """The script of the tables, and its hash, by which the page's security policy knows it from any other."""
    text = (_TEMPLATES / "tables.js").read_text("utf-8")
    return Markup(text), base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
