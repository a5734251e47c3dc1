"""Words that several parts put into sentences."""

from __future__ import annotations

import unicodedata


def counted(count: int, noun: str) -> str:
    """``"1 epoch"``, ``"2 epochs"``, ``"no epochs"``: a number with its noun in the right form."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    r"""The text with control characters, but for line ends and tabs, shown as escapes: ``\x1b`` instead of ESC.

    So a name that somebody else chose cannot steer a terminal, or turn the direction in which it is read.
    """
    return "".join(
        letter
        if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
