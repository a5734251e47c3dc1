"""Words that several parts put into sentences."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NUMBERS = frozenset((int, float, bool, type(None)))
"""Types of values without text."""


def counted(count: int, noun: str) -> str:
    """``"1 epoch"``, ``"2 epochs"``, ``"no epochs"``: a number with its noun in the right form."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def as_words(seconds: float) -> str:
    """A duration for a sentence: ``"2.5 s"``, ``"80 s"``, ``"12.5 min"``, ``"6.3 h"``."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 10_000 else f"{seconds / 3600:,.1f} h"


def as_budget(seconds: float) -> str:
    """A duration as ``--budget`` takes it, rounded up to tens of seconds, minutes or half hours: ``"30m"``."""
    if seconds <= 120:
        return f"{10 * math.ceil(seconds / 10)}s"
    if seconds <= 7200:
        return f"{math.ceil(seconds / 60)}m"
    return f"{math.ceil(seconds / 1800) / 2:g}h"


def first_of(names: Sequence[str], count: int = 3) -> str:
    """``"a, b, c, ..."``: the first of some names."""
    return ", ".join([*names[:count], *(["..."] if len(names) > count else [])])


def printable(text: str) -> str:
    r"""The text with control characters, but for line ends and tabs, shown as escapes: ``\x1b`` instead of ESC.

    So a name that somebody else chose cannot steer a terminal, or turn the direction in which it is read.
    """
    return _with_escapes(text, "\n\t", lambda letter: letter.encode("unicode_escape").decode("ascii"))


def printable_data(value: Any) -> Any:
    """The same for all texts in lists and mappings, however deep."""
    kind = type(value)
    if kind is str:
        return value if value.isprintable() else printable(value)
    # Numbers are most of what there is: they are passed over before they cost a call.
    if kind is dict or isinstance(value, Mapping):
        return {
            name if type(name) is str and name.isprintable() else printable_data(name): item
            if type(item) in _NUMBERS
            else printable_data(item)
            for name, item in value.items()
        }
    if kind is list or isinstance(value, list | tuple):
        return kind([item if type(item) in _NUMBERS else printable_data(item) for item in value])
    return printable(value) if isinstance(value, str) else value


def printable_json(text: str) -> str:
    """JSON of the same value without control characters outside of its escapes; ``ensure_ascii`` hides letters too."""
    return _with_escapes(text, "\n", lambda letter: json.dumps(letter)[1:-1])


def _with_escapes(text: str, kept: str, escaped: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter in kept or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")
        else escaped(letter)
        for letter in text
    )
