"""From parsed JSON to a dataclass, with one clear error for everything that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from se_nas.errors import RunError

T = TypeVar("T")


def parse(kind: type[T], data: Any, where: str) -> T:
    """``data`` as the dataclass ``kind``, nested dataclasses included; keys that it does not know are ignored.

    Args:
        kind: the dataclass. The types of its fields are checked, with their bounds.
        data: what ``json.loads`` returned.
        where: what the data are, for the message: a file, or a row of one.

    Raises:
        RunError: a field is missing, or its value has another type or lies out of bounds. The message names the
            fields.
    """
    try:
        return _adapter(kind).validate_python(data)  # type: ignore[arg-type]
    except ValidationError as error:
        raise RunError(f"{where} is damaged: {_reason(error, data)}.") from error


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def _reason(error: ValidationError, data: Any) -> str:
    errors = error.errors(include_url=False)
    # A dataclass with keyword-only fields reports a missing one as a missing argument.
    missing = [_name(one["loc"], data) for one in errors if one["type"].startswith("missing")]
    if missing:
        return f"it lacks {', '.join(missing)}"
    first = errors[0]
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{_name(first['loc'], data) or 'it'} is {_short(first['input'])}, but {message}"


def _name(location: tuple[int | str, ...], data: Any) -> str:
    """Dotted name of a field; what pydantic appends to tell the members of a union apart is left out."""
    parts = []
    for part in location:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            break
        parts.append(str(part))
    return ".".join(parts)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
