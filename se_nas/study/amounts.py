"""Amounts as people write them: durations, and the resources of a Ray actor."""

from __future__ import annotations

import math
import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: str | float) -> float:
    """Seconds of ``"90s"``, ``"8m"``, ``"2h"``, ``"1d"`` or a number of seconds.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    text = str(value).strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    seconds = float(match[1]) * _UNITS.get(match[2], 1.0) if match else math.nan
    if not 0 < seconds < math.inf:
        raise ValueError("a duration is a number above 0 with s, m, h or d, such as 90s, 8m or 2h")
    return seconds


def parse_resources(text: str) -> dict[str, float]:
    """Amounts above 0 by name, of ``"GPU=0.5,edge=1"``; CPU and GPU in any case.

    Raises:
        ValueError: it is something else.
    """
    amounts: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"\s*([A-Za-z_][\w:.-]*)\s*=\s*(\d+(?:\.\d+)?|\.\d+)\s*", part)
        amount = float(match[2]) if match else 0.0
        if match is None or amount <= 0:
            raise ValueError("resources are names and numbers above 0, such as GPU=0.5,edge=1")
        if amount > 1 and amount % 1:
            raise ValueError(f"an amount above 1 is a whole number; {match[1]} cannot be {amount:g}")
        name = match[1].upper() if match[1].upper() in ("CPU", "GPU") else match[1]
        amounts[name] = amount
    return amounts
