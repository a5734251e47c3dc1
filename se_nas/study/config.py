"""What a user asks of a search, checked once. The same keys serve Python, the command line and YAML files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from se_nas.arguments import checked
from se_nas.documents import MAX_WRITTEN_BYTES, parse_yaml, read_text
from se_nas.errors import ConfigError, nearest
from se_nas.objectives import COSTS, OBJECTIVES
from se_nas.study.amounts import parse_duration, parse_resources
from se_nas.study.config_errors import explain, unknown
from se_nas.study.config_fields import DEFAULT_BUDGET, LIMIT, NO_STOPPING, ConfigFields

_RAY = re.compile(r"ray(://[^/\s]+:\d+)?")


class SearchConfig(ConfigFields):
    """The configuration of a search.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), or a value is not allowed.
    """

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, SearchConfig.model_fields)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: Any) -> Any:
        if isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ValueError(
                "leave it out or give a value; an empty one is often a shell variable that is not set"
            )
        return value

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_run_or_more(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return (str(value),)
        if isinstance(value, list | tuple):
            return tuple(str(each) if isinstance(each, Path) else each for each in value) or None
        return value

    @field_validator("warm_start")
    @classmethod
    def _every_run_is_named_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        runs = value or ()
        for number, each in enumerate(runs):
            cls._says_something(each)
            if each in runs[:number]:
                raise ValueError(f"{each!r} is named twice")
        return value

    @field_validator("data", "val_data", "test_data", "space", "checkpoint", "runs", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("objectives", "log", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            return tuple(part.strip() for part in value.split(","))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("objectives")
    @classmethod
    def _accuracy_and_costs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in OBJECTIVES:
                raise ValueError(unknown(name, OBJECTIVES))
        if "accuracy" not in value or not 2 <= len(value) <= 3 or len(set(value)) != len(value):
            raise ValueError(f"name accuracy and one or two different costs of {', '.join(COSTS)}")
        return ("accuracy", *(name for name in value if name != "accuracy"))

    @field_validator("early_stopping")
    @classmethod
    def _rule_exists(cls, value: str) -> str:
        if value != NO_STOPPING:
            # The rules bring scipy along, which nobody who leaves them off should wait for.
            from se_nas.early_stopping import RULES

            if value not in RULES:
                raise ValueError(unknown(value, (NO_STOPPING, *RULES)))
        return value

    @field_validator("budget", "candidate_timeout")
    @classmethod
    def _is_a_duration(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            parse_duration(value)
        return value

    @field_validator("executor")
    @classmethod
    def _executor_exists(cls, value: str) -> str:
        if value != "local" and not _RAY.fullmatch(value):
            close = nearest(value, ("local", "ray", "ray://HOST:PORT"))
            raise ValueError(f"it is local, ray or ray://HOST:PORT, such as ray://head:10001.{close}")
        return value

    @field_validator("ray_resources")
    @classmethod
    def _are_resources(cls, value: str | None) -> str | None:
        parse_resources(value or "")
        return value

    @model_validator(mode="after")
    def _ray_is_asked_for_once(self) -> SearchConfig:
        if self.ray_resources is not None and not self.on_ray:
            raise ValueError("ray_resources needs the executor ray or ray://HOST:PORT")
        if self.on_ray and ("," in self.device or self.device == "cuda:all"):
            raise ValueError(
                f"device is {self.device!r}, but with Ray each actor has a GPU of its own: give --device cuda"
            )
        return self

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> SearchConfig:
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained and checkpoint both set the initial weights; leave one of them out")
        return self

    @model_validator(mode="after")
    def _settling_needs_a_model(self) -> SearchConfig:
        if self.stop_when_settled and self.sampler != "pareto":
            raise ValueError(
                f"stop_when_settled works with the sampler 'pareto' only; the sampler is {self.sampler!r}. Leave"
                " one of them out"
            )
        return self

    @model_validator(mode="after")
    def _a_study_is_in_a_database(self) -> SearchConfig:
        if self.study is not None and self.storage is None:
            raise ValueError("study names a study in a database; give its storage too")
        if self.latency_on is not None and self.storage is None and not self.on_ray:
            raise ValueError(
                "latency_on needs a way to reach the other machine: a storage that it shares, or the executor ray"
            )
        if self.storage is not None and self.on_ray:
            raise ValueError("storage and Ray cannot be combined; leave out storage or executor")
        return self

    @property
    def budget_seconds(self) -> float | None:
        """Time for everything in seconds; None if only trials are given, the default if neither is."""
        if self.budget is None:
            return parse_duration(DEFAULT_BUDGET) if self.trials is None else None
        return parse_duration(self.budget)

    @property
    def fine_tunes(self) -> bool:
        """Whether candidates start from trained weights."""
        return self.pretrained or self.checkpoint is not None

    @property
    def candidate_seconds(self) -> float | None:
        """Seconds after which a candidate counts as failed; None for no limit."""
        return None if self.candidate_timeout is None else parse_duration(self.candidate_timeout)

    @property
    def on_ray(self) -> bool:
        """Whether candidates train on a Ray cluster."""
        return self.executor != "local"

    def limits(self) -> dict[str, str]:
        """The upper limits that are given, by the name of the cost, as the user wrote them."""
        given = {name: getattr(self, LIMIT + name) for name in COSTS}
        return {name: text for name, text in given.items() if text is not None}

    @classmethod
    @checked
    def load(cls, path: str | Path, **overrides: Any) -> SearchConfig:
        """Read a YAML file; ``overrides`` that are not None replace its values.

        Raises:
            ConfigError: the file cannot be read or is not a mapping, or a key or value is not allowed.
        """
        import yaml

        try:
            values = parse_yaml(read_text(Path(path), MAX_WRITTEN_BYTES))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the configuration {path} cannot be read: {error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} must hold keys and values, such as 'backbone: resnet50'.")
        given = {name: value for name, value in overrides.items() if value is not None}
        return cls(**{**values, **given})
