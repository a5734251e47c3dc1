"""The errors that a user can cause. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class SeNasError(Exception):
    """Base of every error that names what was given, what is allowed and what to do."""


class ConfigError(SeNasError):
    """A configuration value, a search space or an option is invalid."""


class BackboneError(SeNasError):
    """The backbone is unknown to timm, has no site, or cannot take what is asked of it."""


class DataError(SeNasError):
    """The data set is missing, empty, unreadable or does not fit the task."""


class DeviceError(SeNasError):
    """The device does not exist or is too small."""


class CheckpointError(SeNasError):
    """Weights on disk do not fit the model, or are not weights."""


class RunError(SeNasError):
    """A run folder or a report is missing, in use, of a newer schema, or not comparable."""


class DiskError(RunError):
    """The disk refuses a file: it is full, read-only or over quota. What was there before is still there."""


class InfeasibleError(SeNasError):
    """No candidate can meet a budget, or the model does not fit the machine."""


def nearest(value: str, known: Iterable[str], count: int = 3) -> str:
    """``" Did you mean 'a' or 'b'?"`` with the known names closest to ``value``; empty if none is close."""
    close = difflib.get_close_matches(value, list(known), n=count, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""


def not_allowed(what: str, value: object, allowed: Iterable[str], or_else: str = "") -> str:
    """``"WHAT is 'x'; allowed: a, b. Did you mean 'a'?"``, as every message about a name that is not one of a few.

    Args:
        what: the field or option.
        value: what was given.
        allowed: the names that are known.
        or_else: what else is allowed, such as "package.module:Class".
    """
    names = list(allowed)
    known = " or ".join(part for part in (", ".join(names), or_else) if part)
    return f"{what} is {value!r}; allowed: {known}.{nearest(str(value), names)}"


@contextmanager
def blamed(subject: str, kind: type[SeNasError] = ConfigError) -> Iterator[None]:
    """Turn exceptions of a user's code into ``kind``: "SUBJECT failed with ...", and where that came from."""
    try:
        yield
    except SeNasError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise kind(
            f"{subject} failed with {type(error).__name__}: {error} ({last.name}, line {last.lineno})"
        ) from error
