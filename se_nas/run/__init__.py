"""The run folder: what a search leaves on disk."""

from se_nas.run.files import read_json, write_bytes, write_json, write_text
from se_nas.run.folder import (
    CHECKPOINTS,
    CONFIG,
    CORRECT,
    FIGURES,
    FINAL,
    HTML,
    JOURNAL,
    LOCK,
    MANIFEST,
    REPORT,
    ROW_FIELDS,
    SCHEMA,
    SEARCH,
    TRIALS,
    RunFolder,
)

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "CORRECT",
    "FIGURES",
    "FINAL",
    "HTML",
    "JOURNAL",
    "LOCK",
    "MANIFEST",
    "REPORT",
    "ROW_FIELDS",
    "SCHEMA",
    "SEARCH",
    "TRIALS",
    "RunFolder",
    "read_json",
    "write_bytes",
    "write_json",
    "write_text",
]
