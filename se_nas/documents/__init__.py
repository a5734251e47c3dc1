"""Documents that others wrote, JSON and YAML: read within bounds, and checked for the types that they should have."""

from se_nas.documents.reading import (
    MAX_BYTES,
    MAX_WRITTEN_BYTES,
    parse_json,
    parse_yaml,
    read_bytes,
    read_text,
)
from se_nas.documents.tables import without_collections

__all__ = [
    "MAX_BYTES",
    "MAX_WRITTEN_BYTES",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_text",
    "without_collections",
]
