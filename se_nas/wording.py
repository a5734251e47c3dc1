"""Words that several parts put into sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``"1 epoch"``, ``"2 epochs"``, ``"no epochs"``: a number with its noun in the right form."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
