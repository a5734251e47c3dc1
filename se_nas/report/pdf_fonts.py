"""Fonts in PDF files, reduced to the letters that a picture has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OF_SETTING = ("GDEF", "GPOS", "GSUB")
"""Tables of a font that say how letters are set. In a PDF, every letter has its place."""


@contextmanager
def without_setting() -> Iterator[None]:
    """Inside of this, fonts are reduced without the tables for setting text, which take half of the time."""
    # What writes PDF files brings it along.
    from fontTools import subset

    usual = subset.Options

    def options(**given: Any) -> subset.Options:
        found = usual(**given)
        found.drop_tables += _OF_SETTING
        return found

    # Matplotlib does not let its caller choose. If it ever asks for options elsewhere, this changes nothing.
    subset.Options = options
    try:
        yield
    finally:
        subset.Options = usual
