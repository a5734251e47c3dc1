"""The fields of a search's configuration, with the ranges that each alone must keep.

Their order and descriptions are those of ``se-nas search --help`` and of the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from se_nas.objectives import COSTS, Objective
from se_nas.study.address import EXAMPLE, check_address, check_study

DEFAULT_BUDGET = "8m"
NO_STOPPING = "off"
LIMIT = "max_"
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
        "_LimitedTask", __base__=_Task, **{LIMIT + name: _limit(cost) for name, cost in COSTS.items()}
    )


class ConfigFields(_LimitedTask):
    """The fields of a search, ``max_NAME`` for each of `se_nas.objectives.COSTS` among them."""

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
    storage: Annotated[str, AfterValidator(check_address)] | None = Field(
        None,
        description=f"Database in which several workers share the study: {EXAMPLE}; by default a file in the run"
        " folder.",
    )
    study: Annotated[str, AfterValidator(check_study)] | None = Field(
        None, description="Name of the study in that database; by default that of the run folder."
    )
    name: str | None = Field(
        None, description="Name of the run folder; by default BACKBONE-DATA-N with the first free N."
    )
    runs: str = Field("runs", description="Folder in which run folders are created.")
