"""What a user asks of a search, checked once. The same keys serve Python, the command line and YAML files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from se_nas.arguments import checked
from se_nas.documents import MAX_WRITTEN_BYTES, parse_yaml, read_text
from se_nas.errors import ConfigError, nearest
from se_nas.objectives import COSTS, OBJECTIVES, Objective
from se_nas.study.address import EXAMPLE, check_address
from se_nas.study.amounts import parse_duration, parse_resources
from se_nas.study.config_errors import explain, unknown

DEFAULT_BUDGET = "8m"
NO_STOPPING = "off"
_RAY = re.compile(r"ray(://[^/\s]+:\d+)?")
_LIMIT = "max_"
"""Begins the name of the field that limits a cost: ``max_latency``."""


class _Task(BaseModel):
    """What is searched, and for what."""

    backbone: str = Field(description="A timm model name.")
    timm_kwargs: dict[str, Any] = Field(
        {}, description="Keyword arguments of timm.create_model that change the network."
    )
    data: str = Field(
        "digits",
        description="Data set: digits, a folder or tar of class folders, torch/NAME, hfds/NAME, wds/FOLDER, or"
        " an entry point of se_nas.data.",
    )
    val_data: str | None = Field(
        None, description="Validation data; by default a part of the training data is split off."
    )
    test_data: str | None = Field(
        None, description="Test data, used for finalists only; by default a part of the training data."
    )
    split_seed: int = Field(0, ge=0, description="Seed of these splits; it is independent of the other seed.")
    space: str = Field("per_block", description="A shipped search space (se-nas spaces) or a YAML file.")
    position: str | None = Field(
        None,
        description="Where SE goes in a block; by default the space's, or the usual one for the backbone's"
        " family.",
    )
    objectives: tuple[str, ...] = Field(
        ("accuracy", "latency"),
        description=f"accuracy and one or two of {', '.join(COSTS)}, separated by commas.",
    )


def _limit(cost: Objective) -> Any:
    """The field of a cost's limit, as pydantic makes one from a type and a ``Field``."""
    return (
        str | None,
        Field(None, description=f"Upper limit on {cost.title}, such as {cost.limit_example}."),
    )


if TYPE_CHECKING:
    _LimitedTask = _Task
else:
    _LimitedTask = create_model(
        "_LimitedTask", __base__=_Task, **{_LIMIT + name: _limit(cost) for name, cost in COSTS.items()}
    )


class SearchConfig(_LimitedTask):
    """The configuration of a search.

    Besides the fields below it has those of `_Task`, and ``max_NAME`` for each of `se_nas.objectives.COSTS`.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), or a value is not allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sampler: str = Field(
        "pareto",
        description="Sampler that suggests candidates: pareto, tpe, nsga2, nsga3, gp, random, qmc, grid or"
        " package.module:Class.",
    )
    early_stopping: str = Field(
        NO_STOPPING, description="Rule that stops hopeless candidates early: off, curves or moasha."
    )
    trials: int | None = Field(None, ge=1, description="Candidates to evaluate, baselines included.")
    stop_when_settled: bool = Field(
        False, description="Stop the search once the sampler expects almost no further improvement."
    )
    budget: str | float | None = Field(
        None,
        description=f"Time for everything, such as 90s, 3m or 2h; {DEFAULT_BUDGET} unless a number of trials is"
        " given.",
    )
    candidate_timeout: str | float | None = Field(
        None,
        description="Time after which a candidate counts as failed, such as 20m; candidates then train in a"
        " process that can be killed.",
    )
    recipe: str | dict[str, Any] | None = Field(
        None,
        description="Training preset: tiny, finetune or imagenet-a3; by default finetune with pretrained weights or a"
        " checkpoint, else tiny; a configuration file may give a mapping of settings.",
    )
    trainer: str = Field(
        "default",
        description="Training function to use instead of the built-in loop: package.module:function, or an entry"
        " point of"
        " se_nas.trainers.",
    )
    log: tuple[str, ...] | None = Field(
        None,
        description="Log every trial as a run to wandb, mlflow or tensorboard, or to package.module:Class, which"
        " is called after every epoch; repeatable.",
    )
    epochs: int | None = Field(
        None, ge=1, description="Epochs per candidate; by default as many as fit the budget."
    )
    batch_size: int | None = Field(
        None, ge=1, description="Training batch size; by default that of the recipe."
    )
    compile: Literal["auto", "off", "on"] | None = Field(
        None,
        description="Whether to compile candidates: off, on, or auto, which measures once whether that pays off;"
        " by default as the recipe says.",
    )
    input_size: int | None = Field(None, ge=1, description="Height and width of the images in pixels.")
    latency_batch: int = Field(1, ge=1, description="Batch size at which latency is measured.")
    latency_backend: str = Field(
        "torch",
        description="Backend that runs the timed network: torch, onnxruntime, or an entry point of se_nas.costs.",
    )
    latency_precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of weights and images in latency measurements: fp32, bf16 or fp16."
    )
    latency_channels_last: bool = Field(
        False, description="Measure latency in the channels-last memory format."
    )
    latency_mode: Annotated[
        Literal["auto", "eager", "compile", "graph"],
        BeforeValidator(lambda mode: "graph" if mode == "cudagraph" else mode),
    ] = Field(
        "auto",
        description="How the timed network runs: eager, compile, graph (one CUDA graph), or auto, which is"
        " graph on CUDA if possible, else eager.",
    )
    latency_threads: int | None = Field(
        None, ge=1, description="CPU threads of a timed inference; by default as many as torch uses."
    )
    latency_optimize: bool = Field(False, description="Rewrite networks for inference before timing them.")
    latency_width: float = Field(
        0.01, gt=0, le=1, description="Target width of the interval of a latency ratio; 0.01 is one percent."
    )
    latency_on: str | None = Field(
        None,
        description="Measure latency on another machine, such as the one the network will run on: with --storage"
        " the host where se-nas worker --latency-only runs, with Ray a resource of its node.",
    )
    final_seeds: int = Field(
        3, ge=0, description="Number of seeds each finalist is trained with; 0 for none."
    )
    pretrained: bool = Field(False, description="Start from timm's pretrained weights.")
    checkpoint: str | None = Field(None, description="Start from the weights in this file.")
    init: Literal["identity", "default"] = Field(
        "identity", description="How inserted blocks are initialised."
    )
    seed: int = Field(0, ge=0, description="Seed of initialisation, data order and sampler.")
    device: str = Field(
        "auto",
        description="auto (cuda, then mps, then cpu), cpu, cuda, cuda:1, mps, several as in cuda:0,cuda:1, or"
        " cuda:all.",
    )
    per_gpu: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Candidates trained at a time on each device; by default one, or on a GPU as many as a"
        " measurement shows to pay off.",
    )
    executor: str = Field(
        "local",
        description="Where candidates train: local, ray (this machine's cluster or that of RAY_ADDRESS, else one"
        " started here), or ray://HOST:PORT.",
    )
    ray_resources: str | None = Field(
        None,
        description="Resources that each Ray actor reserves, such as GPU=0.5,edge=1; by default one CPU, and one"
        " GPU if it trains on one.",
    )
    keep: Literal["front", "all", "none"] = Field(
        "front", description="Candidates whose weights are kept on disk: front, all or none."
    )
    strict: bool = Field(
        False, description="Stop at an unreadable image instead of skipping and counting it."
    )
    warm_start: tuple[str, ...] | None = Field(
        None,
        description="An earlier run, repeatable, of which readings made under the same conditions are reused;"
        " others tell the sampler where SE may pay.",
    )
    storage: str | None = Field(
        None,
        description=f"Database in which several workers share the study: {EXAMPLE}; by default a file in the run"
        " folder.",
    )
    study: str | None = Field(
        None, description="Name of the study in that database; by default that of the run folder."
    )
    name: str | None = Field(
        None, description="Name of the run folder; by default BACKBONE-DATA-N with the first free N."
    )
    runs: str = Field("runs", description="Folder in which run folders are created.")

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

    @field_validator("storage")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        # Its error is no ValueError, of which the message would repeat the value.
        return None if value is None else check_address(value)

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
        given = {name: getattr(self, _LIMIT + name) for name in COSTS}
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
