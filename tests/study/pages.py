"""Pages as a reader and a script see them."""

import json
from html.parser import HTMLParser

import pandas as pd


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def table(html: str, name: str) -> pd.DataFrame:
    """A table of the page as its exact values say."""
    columns: list[str] = []
    rows: list[list[str]] = []
    inside = False
    for tag, found in Page(html).tags:
        if tag == "table":
            inside = found["id"] == name
        elif inside and tag == "tr":
            rows.append([])
        elif inside and tag == "th":
            columns += json.loads(found["data-csv"] or "")
        elif inside and "data-values" in found:
            rows[-1] += json.loads(found["data-values"] or "")
    return pd.DataFrame(rows[1:], columns=columns)
