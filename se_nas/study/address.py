"""Addresses of the databases in which several workers share a study, and the names of such studies."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

from se_nas.errors import ConfigError

DRIVER = "postgresql+psycopg"
EXAMPLE = f"{DRIVER}://USER@HOST/DATABASE"
_NO_ADDRESS = f"storage is not an address; give {EXAMPLE}."
_SECRET = ("password", "secret")
"""In the names of libpq's settings that hold one."""
_LONGEST_NAME = 512
"""Characters that Optuna's table has room for."""


def check_address(url: str) -> str:
    """The address of a database that several workers can write.

    Raises:
        ConfigError: it is another kind of storage, has a password, or its driver is not installed. The message
            never repeats the address, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        settings = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigError(_NO_ADDRESS) from None
    # All between the first colon and an @ is one for SQLAlchemy, even with a / or ? in it.
    user, at, _ = url.partition("://")[2].partition("@")
    if (at and ":" in user) or any(word in name.lower() for name in settings for word in _SECRET):
        # Command lines are seen by everyone on a machine, and kept by the manifest of the run.
        raise ConfigError(
            "storage contains a password; leave it out and put it into ~/.pgpass or PGPASSWORD."
        )
    try:
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(_NO_ADDRESS) from None
    if not url.isprintable() or " " in url:
        raise ConfigError(_NO_ADDRESS)
    if parts.scheme.partition("+")[0] in ("", "file", "sqlite", "journal"):
        raise ConfigError(
            f"storage is a file, which several machines cannot write safely; give {EXAMPLE}, or leave storage out"
            " for a search on one machine."
        )
    if parts.scheme != DRIVER or not host or not parts.path.strip("/"):
        raise ConfigError(f"storage is not the address of a PostgreSQL database; give {EXAMPLE}.")
    if find_spec("psycopg") is None:
        raise ConfigError("storage needs psycopg, which is not installed: pip install 'se-nas[postgresql]'")
    return url


def check_study(name: str) -> str:
    """The name of a study in such a database.

    Raises:
        ConfigError: the database has no room for it, or it would steer a terminal.
    """
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"study is {name[:_LONGEST_NAME]!r}: its name is up to {_LONGEST_NAME} printable characters."
        )
    return name
