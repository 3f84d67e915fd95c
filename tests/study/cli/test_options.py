import argparse
import io
from dataclasses import dataclass, field
from typing import Any

import pytest

from captum_alignment.study.cli import _options
from captum_alignment.study.cli._options import add_fields, chosen, say


@dataclass(frozen=True, kw_only=True)
class Config:
    count: int = field(default=3, metadata={"help": "how many", "metavar": "N"})
    size: int | None = field(default=None, metadata={"help": "how large", "none": "all"})
    batch: int | str = field(default="auto", metadata={"help": "how many at once"})
    rates: tuple[float, ...] = field(default=(0.5, 1.0), metadata={"help": "how fast"})
    bounds: tuple[float, float] = field(default=(0, 1), metadata={"help": "from 95 % to"})
    names: Any = field(default="fast", metadata={"help": "what", "nargs": "+", "flags": ("--name", "--old-name")})
    strict: bool = field(default=False, metadata={"help": "stop"})


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_fields(parser, Config, known={"names": ("fast", "slow")}, defaults={"count": 4})
    return parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--count 7", {"count": 7}),
        ("--size all", {"size": None}),
        ("--size 5", {"size": 5}),
        ("--batch 5", {"batch": 5}),
        ("--batch auto", {"batch": "auto"}),
        ("--rates 1 2.5 inf", {"rates": (1.0, 2.5, float("inf"))}),
        ("--bounds -1 1", {"bounds": (-1.0, 1.0)}),
        ("--name a b", {"names": ("a", "b")}),
        ("--old-name a", {"names": ("a",)}),
        ("--strict", {"strict": True}),
    ],
)
def test_options_become_the_fields_that_were_given(parser, words, expected):
    assert chosen(Config, vars(parser.parse_args(words.split()))) == expected


def test_what_a_field_does_not_take_is_named(parser, capsys):
    for words, message in (("--count x", "got 'x', expected a whole number"), ("--size x", "whole number or 'all'")):
        with pytest.raises(SystemExit):
            parser.parse_args(words.split())
        assert message in capsys.readouterr().err


def test_the_help_shows_defaults_and_what_there_is(parser):
    text = " ".join(parser.format_help().split())
    for part in (
        "how many (default: 4)",
        "how large (default: all)",
        "how fast (default: 0.5 1)",
        "from 95 % to (default: 0 1)",
        "what: fast, slow (default: fast)",
        "stop",
    ):
        assert part in text


class Stream(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_sentences_are_wrapped_for_a_reader_and_whole_for_a_program(monkeypatch, capsys):
    sentence = "- " + "word " * 40
    say(sentence)
    assert capsys.readouterr().out == sentence + "\n"
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Stream()
    monkeypatch.setattr(_options.sys, "stdout", terminal)
    say(sentence)
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) < 40
    assert [line[:3] for line in lines] == ["- w", *["  w"] * (len(lines) - 1)]
