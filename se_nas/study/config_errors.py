"""What is wrong with a configuration, in the words of se-nas instead of pydantic's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from se_nas.errors import nearest


def unknown(value: str, known: Iterable[str]) -> str:
    """What is wrong with a name that is not one of those known."""
    return f"{value!r} is unknown; allowed: {', '.join(known)}.{nearest(value, known)}"


def explain(error: ValidationError, known: Iterable[str]) -> str:
    """The lines, one for each key or value that is not allowed, that a user reads.

    Args:
        error: what pydantic found.
        known: the keys that there are, for the nearest to an unknown one.
    """
    lines: list[str] = []
    expected: dict[str, list[str]] = {}
    for problem in error.errors():
        loc = problem["loc"]
        # What follows a field's name is the place in its value, or which of several types was tried.
        field = (
            ".".join(str(part) for part in loc if part is loc[0] or isinstance(part, int)) or "configuration"
        )
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {field!r}.{nearest(field, known)}")
        elif problem["type"] == "missing":
            lines.append(f"{field} is missing.")
        else:
            reason = _reason(problem)
            if not loc:
                lines.append(reason)
                continue
            subject = f"{field} is {problem['input']!r}"
            expected.setdefault(subject, []).append(reason[:1].lower() + reason[1:])
    for subject, reasons in expected.items():
        mark = ";" if reasons[0].startswith("allowed:") else ":"
        lines.append(f"{subject}{mark} {' or '.join(reasons)}")
    ended = [line if line.endswith((".", "?")) else f"{line}." for line in lines]
    return "\n".join(dict.fromkeys(ended))


def _reason(problem: Any) -> str:
    """What is wrong with a value, in our words where pydantic's would be another style."""
    if problem["type"] != "literal_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    names = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    return f"allowed: {', '.join(names)}.{nearest(str(problem['input']), names)}"
