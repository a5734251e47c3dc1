"""Search-space files: YAML in, checked rules out. The only place that knows pydantic and YAML."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from se_nas.documents import MAX_WRITTEN_BYTES, parse_yaml, read_text
from se_nas.errors import ConfigError, nearest
from se_nas.sites import ACTIVATIONS, GATES, ROUNDINGS
from se_nas.space._spec import BLOCKS, GRANULARITIES, MAX_REDUCTIONS, NATIVE, POSITIONS, SpaceSpec

_EXACT = 2**53
"""Below this a float holds every whole number."""
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# mypy wants literals spelled out; these are spelled once, where the values are used.
Granularity = Literal[GRANULARITIES]  # type: ignore[valid-type]
Position = Literal[POSITIONS]  # type: ignore[valid-type]
Blocks = Literal[BLOCKS]  # type: ignore[valid-type]
Native = Literal[NATIVE]  # type: ignore[valid-type]
Rounding = Literal[ROUNDINGS]  # type: ignore[valid-type]
Gate = Literal[GATES]  # type: ignore[valid-type]
Activation = Literal[ACTIVATIONS]  # type: ignore[valid-type]


class SpaceFile(BaseModel):
    """A search space for se-nas: where squeeze-and-excitation may go, and with which reduction ratios."""

    model_config = ConfigDict(extra="forbid", strict=True, title="se-nas search space")

    description: str = Field("", description="one line of description")
    granularity: Granularity = Field(
        description="stage (one γ or none for each stage), block (SE on or off in each block, one γ for each"
        " stage) or one_stage (SE in one stage, everywhere or nowhere, one γ for the network)"
    )
    reduction: list[Ratio] = Field(
        description=f"a list of 1 to {MAX_REDUCTIONS} different reduction ratios γ, each a number above 0",
        min_length=1,
        max_length=MAX_REDUCTIONS,
        json_schema_extra={"uniqueItems": True},
    )
    position: Literal["usual", "all"] | Position | Annotated[list[Position], Field(min_length=1)] = Field(
        "usual",
        description="usual (the backbone's own), all (each of the paper's five that the backbone has), one of"
        f" {', '.join(POSITIONS)}, or a list of different ones",
    )
    stages: Literal["all"] | Annotated[list[int], Field(min_length=1)] = Field(
        "all", description="all, or a list of different stage numbers from 0; -1 is the last stage"
    )
    blocks: Blocks = Field("all", description="blocks of a stage that may change: all, first or last")
    native: Native = Field(
        "free",
        description="gates that timm builds: keep, remove, resize (switched and sized like inserted ones) or"
        " free (the same, and a stage may also keep them as they are)",
    )
    rounding: Rounding = Field(
        "timm", description="of hidden widths: timm (as the family rounds) or exact (C // γ)"
    )
    gate: Gate = Field("sigmoid", description=f"gate of inserted blocks: {', '.join(GATES)}")
    act: Activation | None = Field(
        None, description=f"inner activation: null (the family's own), {', '.join(ACTIVATIONS)}"
    )
    bias: bool = Field(True, description="whether the layers of inserted blocks have biases: true or false")


def read_spec(path: Path) -> SpaceSpec:
    """Rules of a search-space file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or breaks a rule; with the line if that is known.
    """
    try:
        text = read_text(path, MAX_WRITTEN_BYTES)
        content = parse_yaml(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the search space {str(path)!r} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{path}{line}: this is not YAML: {problem}.") from error
    if not isinstance(content, dict) or node is None:
        found = "empty" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{path}: a search space is a list of keys and values; the file is {found}.")
    return parse_spec(content, source=str(path), lines=dict(_lines(node, str(path))))


def parse_spec(
    content: Mapping[str, Any], *, source: str = "search space", lines: Mapping[Hashable, int] | None = None
) -> SpaceSpec:
    """Rules from a mapping as a file would hold it.

    Raises:
        ConfigError: a key is unknown or missing, or a value is not allowed.
    """
    lines, known = lines or {}, list(SpaceFile.model_fields)
    for key in content:
        if key not in known:
            raise ConfigError(
                f"{_where(source, key, lines)}: unknown key {key!r}.{nearest(str(key), known)}"
                f" Allowed: {', '.join(known)}."
            )
    try:
        checked = SpaceFile.model_validate(dict(content)).model_dump()
    except ValidationError as error:
        raise ConfigError(_explain(error, content, source, lines)) from error
    values: dict[str, Any] = {
        name: tuple(_number(item) for item in value) if isinstance(value, list) else value
        for name, value in checked.items()
    }
    for name in ("reduction", "position", "stages"):
        value = values[name]
        if isinstance(value, tuple) and len(set(value)) < len(value):
            twice = next(item for item in value if value.count(item) > 1)
            raise ConfigError(f"{_where(source, name, lines)}: {name} has {twice!r} twice.")
    return SpaceSpec(**values)


def _number(item: Any) -> Any:
    return int(item) if isinstance(item, float) and item.is_integer() and item < _EXACT else item


def _explain(
    error: ValidationError, content: Mapping[str, Any], source: str, lines: Mapping[Hashable, int]
) -> str:
    first = error.errors()[0]
    field = str(first["loc"][0])
    where, allowed = _where(source, field, lines), SpaceFile.model_fields[field].description
    if first["type"] == "missing":
        return f"{where}: {field!r} is missing; it is {allowed}."
    value = content[field]
    # Of a value that may be one thing or a list, pydantic reports every reading that failed.
    items = [part for found in error.errors() if found["loc"][0] == field for part in found["loc"][1:]]
    index = next((part for part in items if isinstance(part, int)), None)
    wrong = "" if index is None or len(value) == 1 else f", where {value[index]!r} is wrong"
    return f"{where}: {field} is {value!r}{wrong}; allowed: {allowed}."


def _where(source: str, field: Hashable, lines: Mapping[Hashable, int]) -> str:
    return f"{source}, line {lines[field]}" if field in lines else source


def _lines(node: yaml.Node, source: str) -> Iterator[tuple[Hashable, int]]:
    """Line of every top-level key; PyYAML would let the last of two equal keys win in silence."""
    assert isinstance(node, yaml.MappingNode)
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise ConfigError(f"{source}, line {key.start_mark.line + 1}: {key.value!r} is given twice.")
        seen.add(key.value)
        yield key.value, key.start_mark.line + 1
