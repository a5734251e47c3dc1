"""From parsed JSON to a dataclass, with one clear reason for everything that does not fit.

The types of numbers here take no text and no truth values, as pydantic's own do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from se_nas.errors import SeNasError

T = TypeVar("T")
Integer = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
PositiveCount = Annotated[int, Field(gt=0, strict=True)]
Real = Annotated[float, Field(allow_inf_nan=False, strict=True)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Percent = Annotated[float, Field(ge=0, le=100, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def parse(kind: type[T], data: Any) -> T:
    """``data`` as the dataclass ``kind``, nested dataclasses included; keys that it does not know are ignored.

    Args:
        kind: the dataclass. The types of its fields are checked, with their bounds.
        data: what ``parse_json`` returned.

    Raises:
        ValueError: a field is missing, or its value has another type or lies out of bounds. The message names the
            fields, to be put behind what the data are.
    """
    try:
        return _adapter(kind).validate_python(data)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(_reason(error, data)) from error


def check_schema(data: Any, newest: int, where: str, error: type[SeNasError]) -> None:
    """Refuse a document whose layout is unknown.

    Args:
        data: what ``parse_json`` returned.
        newest: schema that this program reads.
        where: what the data are, for the message.
        error: what is raised if they are not an object with a ``schema``, or that is newer.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where} is damaged: it must be a JSON object.")
    schema = data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise error(f"{where} is damaged: its schema is {_short(schema)}.")
    if schema > newest:
        raise error(
            f"{where} has schema {schema}; this version of se-nas reads up to {newest}. Upgrade se-nas."
        )


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
