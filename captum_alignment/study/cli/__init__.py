"""The command ``captum-alignment``: one module per command, which imports what is slow only when it runs."""

from captum_alignment.study.cli._main import main

__all__ = [
    "main",
]
