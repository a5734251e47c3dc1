"""What a user asks of a search, checked once. The same keys serve Python, the command line and YAML files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from se_nas.errors import ConfigError, nearest
from se_nas.objectives import COSTS

Objective = Literal["accuracy", "latency", "macs", "params"]
DEFAULT_BUDGET = "8m"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SearchConfig(BaseModel):
    """The configuration of a search.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), or a value is not allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False)

    backbone: str = Field(description="A timm model name.")
    timm_kwargs: dict[str, Any] = Field(
        {}, description="Keywords of timm.create_model that change the network."
    )
    position: str | None = Field(
        None, description="Where SE goes in a block; the space's or family's by default."
    )
    space: str = Field("per_block", description="A shipped search space or a YAML file.")
    data: str = Field(
        "digits", description="Data set: digits, a folder or tar of class folders, torch/NAME, ..."
    )
    val_data: str | None = Field(None, description="Validation data; by default split off the training data.")
    test_data: str | None = Field(
        None, description="Test data, seen by finalists only; by default split off."
    )
    split_seed: int = Field(
        0, ge=0, description="Seed of the train/validation split, independent of the seed."
    )
    strict: bool = Field(
        False, description="Stop at an unreadable image instead of skipping and counting it."
    )
    objectives: tuple[Objective, ...] = Field(
        ("accuracy", "latency"), description="accuracy and one or two costs."
    )
    sampler: str = Field(
        "pareto", description="pareto, tpe, nsga2, nsga3, gp, random, qmc, grid or module:Class."
    )
    early_stopping: Literal["off", "curves", "moasha"] = Field(
        "off", description="Stop hopeless candidates early."
    )
    trials: int | None = Field(None, ge=1, description="Candidates to evaluate, baselines included.")
    stop_when_settled: bool = Field(
        False, description="End the search when the sampler expects next to nothing of what is left."
    )
    budget: str | float | None = Field(None, description="Time for everything: 90s, 8m, 2h.")
    recipe: str | dict[str, Any] = Field("tiny", description="Training preset, or a mapping of its settings.")
    trainer: str = Field(
        "default", description="package.module:function that trains instead of the own loop."
    )
    log: str | None = Field(
        None, description="tensorboard, or package.module:Class that is told every epoch."
    )
    epochs: int | None = Field(None, ge=1, description="Epochs a candidate; by default sized to the budget.")
    batch_size: int | None = Field(None, ge=1, description="Training batch size.")
    compile: Literal["auto", "off", "on"] | None = Field(
        None, description="Compile candidates; auto (the recipe's default) measures once whether it pays."
    )
    input_size: int | None = Field(None, ge=1, description="Height and width of the images in pixels.")
    latency_batch: int = Field(1, ge=1, description="Batch size at which latency is measured.")
    latency_backend: str = Field(
        "torch", description="torch, onnxruntime, or an entry point of se_nas.costs."
    )
    latency_precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of weights and images in latency measurements."
    )
    latency_channels_last: bool = Field(False, description="Memory format in latency measurements.")
    latency_mode: Literal["eager", "compile", "cudagraph"] = Field(
        "eager", description="How the network that is timed runs."
    )
    latency_threads: int | None = Field(
        None, ge=1, description="CPU threads of one timed inference; torch's number by default."
    )
    latency_optimize: bool = Field(False, description="Rewrite networks for inference before timing them.")
    latency_width: float = Field(
        0.01, gt=0, le=1, description="Wanted width of the interval of a latency ratio; 0.01 is one percent."
    )
    final_seeds: int = Field(3, ge=0, description="Seeds that finalists are trained with; 0 for none.")
    max_params: str | None = Field(None, description="Hard limit on parameters: 27M.")
    max_macs: str | None = Field(None, description="Hard limit on multiply-adds: 4.2G.")
    max_latency: str | None = Field(
        None, description="Hard limit on latency: 1.05x the backbone's, or 6.5ms."
    )
    pretrained: bool = Field(False, description="Start from timm's pretrained weights.")
    checkpoint: str | None = Field(None, description="Start from the weights in this file.")
    init: Literal["identity", "default"] = Field("identity", description="How inserted blocks start.")
    seed: int = Field(0, ge=0, description="Seed of initialisation, data order and sampler.")
    device: str = Field("auto", description="auto (cuda, then mps, then cpu), cpu, cuda, cuda:1 or mps.")
    per_gpu: int = Field(
        1, ge=1, le=64, description="Candidates trained at a time on the device, each in its own process."
    )
    warm_start: str | None = Field(None, description="A finished run whose trials the sampler learns from.")
    keep: Literal["front", "all", "none"] = Field("front", description="Whose weights stay on disk.")
    name: str | None = Field(None, description="Name of the run folder.")
    runs: str = Field("runs", description="Folder that run folders are made in.")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None

    @field_validator("objectives", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("objectives")
    @classmethod
    def _accuracy_and_costs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "accuracy" not in value or not 2 <= len(value) <= 3 or len(set(value)) != len(value):
            raise ValueError("name accuracy and one or two different costs of latency, macs, params")
        return ("accuracy", *(name for name in value if name != "accuracy"))

    @field_validator("budget")
    @classmethod
    def _budget_is_a_duration(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            parse_duration(value)
        return value

    @model_validator(mode="after")
    def _settling_needs_a_model(self) -> SearchConfig:
        if self.stop_when_settled and self.sampler != "pareto":
            raise ValueError(
                "stop_when_settled needs the expectations of the sampler 'pareto'; the sampler is"
                f" {self.sampler!r}. Leave one of the two out"
            )
        return self

    @property
    def budget_seconds(self) -> float | None:
        """Time for everything in seconds; the default where neither trials nor a budget is given, else None."""
        if self.budget is None:
            return parse_duration(DEFAULT_BUDGET) if self.trials is None else None
        return parse_duration(self.budget)

    def limits(self) -> dict[str, str]:
        """Hard limits as the user wrote them, by name of the cost."""
        given = {name: getattr(self, f"max_{name}", None) for name in COSTS}
        return {name: text for name, text in given.items() if text is not None}

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> SearchConfig:
        """Read a YAML file; ``overrides`` that are not None win.

        Raises:
            ConfigError: the file cannot be read, is no mapping, or a key or value is not allowed.
        """
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the configuration {path} cannot be read: {error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is no valid YAML: {error}") from error
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} must hold keys and values, such as 'backbone: resnet50'.")
        given = {name: value for name, value in overrides.items() if value is not None}
        return cls(**{**values, **given})


def parse_duration(value: str | float) -> float:
    """Seconds of ``"90s"``, ``"8m"``, ``"2h"``, ``"1d"`` or a number of seconds.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    text = str(value).strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    seconds = float(match[1]) * _UNITS.get(match[2], 1.0) if match else math.nan
    if not 0 < seconds < math.inf:
        raise ValueError("a duration is a number above 0 with s, m, h or d, such as 90s, 8m or 2h")
    return seconds


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "configuration"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {field!r}.{nearest(field, SearchConfig.model_fields)}")
        elif problem["type"] == "missing":
            lines.append(f"{field} is missing.")
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            if not problem["loc"]:
                lines.append(f"{reason}.")
                continue
            lines.append(f"{field} is {problem['input']!r}: {reason[:1].lower()}{reason[1:]}.")
    return "\n".join(dict.fromkeys(lines))
