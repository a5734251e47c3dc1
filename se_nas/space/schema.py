"""JSON schema of search-space files, for editors.

``python -m se_nas.space.schema > search_spaces/schema.json`` writes it.
"""

from __future__ import annotations

import json


def schema_text() -> str:
    """The schema as the file beside the shipped spaces holds it."""
    from se_nas.space._file import SpaceFile

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SpaceFile.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
