"""Arguments of public functions: one of a wrong type is refused by a sentence that names it.

The annotations say what is allowed, so there is one place that says it.
"""

from __future__ import annotations

import functools
import inspect
import os
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from se_nas.errors import ConfigError

Check = Callable[[Any], bool]
Checked = TypeVar("Checked", bound=Callable[..., Any])

_KINDS = {"Mapping": "a mapping", "Callable": "a function"}
_ITEMS: Mapping[Any, str] = {int: "integers", str: "strings", float: "numbers", Any: ""}
_WORDS: Mapping[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "True or False",
    Path: "a path",
    None: "None",
    types.NoneType: "None",
}


def checked(target: Checked) -> Checked:
    """Make a function, or the constructor of a class, check its arguments against their annotations.

    Integers include NumPy's, numbers include integers, any sequence but a string will do for a tuple or a list, and
    what is annotated as a path may be a string but not an empty one. What an annotation says of the items of a
    mapping is not checked, nor are names that are only imported for type checkers.

    Raises (the function):
        ConfigError: an argument is not what its annotation says; the message has its name.
    """
    if isinstance(target, type):
        target.__init__ = checked(target.__init__)  # type: ignore[misc]
        return target
    function: Callable[..., Any] = target
    found: dict[str, tuple[Check, Any]] | None = None
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal found
        if found is None:
            # Not before: modules that import each other's classes are complete by now.
            found = _checks(function)
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in found and not found[name][0](value):
                raise ConfigError(_message(name, value, found[name][1]))
        return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def _checks(function: Callable[..., Any]) -> dict[str, tuple[Check, Any]]:
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            hint = parameter.annotation
            hint = eval(hint, function.__globals__) if isinstance(hint, str) else hint
        except NameError:
            continue
        check = None if hint is parameter.empty else _check(hint)
        if check is not None:
            found[name] = (check, hint)
    return found


def _check(hint: Any) -> Check | None:
    """Tells whether a value is what ``hint`` says; None if any may be."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # A path is checked as one, also if it is a string.
        checks = [_check(part) for part in parts if not (part is str and Path in parts)]
        some = [check for check in checks if check is not None]
        return (lambda value: any(check(value) for check in some)) if len(some) == len(checks) else None
    if origin is Literal:
        return lambda value: any(value == part and type(value) is type(part) for part in parts)
    kind = types.NoneType if hint is None else origin or hint
    if kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return None
    if kind in _SCALARS:
        return _SCALARS[kind]
    if issubclass(kind, Sequence):
        return _sequence(kind, parts)
    return lambda value: isinstance(value, kind)


def _sequence(kind: type, parts: tuple[Any, ...]) -> Check:
    """Any sequence but a string will do, if its items and, for a tuple that says so, their number are right."""
    fixed = issubclass(kind, tuple) and bool(parts) and Ellipsis not in parts
    items = [_check(part) for part in (parts if fixed else parts[:1])]

    def check(value: Any) -> bool:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        if fixed and len(value) != len(items):
            return False
        each = items if fixed else items * len(value)
        return all(item is None or item(v) for item, v in zip(each, value, strict=False))

    return check


def _is_path(value: Any) -> bool:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else b""
    return isinstance(text, str) and text != "" and "\0" not in text


_SCALARS: Mapping[type, Check] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    Path: _is_path,
}


def _described(hint: Any) -> str:
    """What may be given, in words: ``"a string, a path or None"``."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words: list[str] = []
    for part in parts:
        origin, inner = get_origin(part), get_args(part)
        if origin is Literal:
            words += [repr(value) for value in inner]
            continue
        kind = origin or part
        plain = kind if isinstance(kind, type) else type(kind)
        if kind in _WORDS:
            words.append(_WORDS[kind])
        elif issubclass(plain, Sequence):
            count = f"{len(inner)} " if issubclass(plain, tuple) and inner and Ellipsis not in inner else ""
            items = _ITEMS.get(inner[0], getattr(inner[0], "__name__", "")) if inner else ""
            words.append(f"a list of {count}{items}" if items else "a list")
        else:
            words.append(_KINDS.get(plain.__name__, f"of type {plain.__name__}"))
    words = list(dict.fromkeys(words))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _message(name: str, value: Any, hint: Any) -> str:
    if isinstance(value, str) and not value and "Path" in str(hint):
        return f"{name} is empty; give a path."
    return f"{name} is {reprlib.repr(value)}; it must be {_described(hint)}."
