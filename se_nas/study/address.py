"""Addresses of the databases in which several workers share a study."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

from se_nas.errors import ConfigError

DRIVER = "postgresql+psycopg"
EXAMPLE = f"{DRIVER}://USER@HOST/DATABASE"


def check_address(url: str) -> str:
    """The address of a database that several workers can write.

    Raises:
        ConfigError: it is another kind of storage, has a password, or its driver is not installed. The message
            never repeats the address, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, query = parts.hostname, parse_qs(parts.query)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"storage is not an address; give {EXAMPLE}.") from None
    if parts.password is not None or "password" in query:
        # Command lines are seen by everyone on a machine, and kept by the manifest of the run.
        raise ConfigError(
            "storage contains a password; leave it out and put it into ~/.pgpass or PGPASSWORD."
        )
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
