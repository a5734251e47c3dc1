"""``manifest.json`` of a run folder: what was run on what, and what came of it besides the trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from se_nas.documents.typed import (
    Count,
    Integer,
    NonNegative,
    Positive,
    PositiveCount,
    Real,
    Share,
    Switch,
    check_schema,
    parse,
)
from se_nas.errors import RunError
from se_nas.sites import Site

SCHEMA = 2
"""Number of the layout that is written. Layout 1 (se-nas 0.1.0) is read too."""
RUNNING = "running"
"""Status of a run whose search is in progress, or was killed."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The search space: ``size`` architectures; ``definition`` is what ``SearchSpace.from_dict`` reads."""

    name: str
    size: Count
    fingerprint: str
    definition: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images: how many of each split, and the statistics they are normalised with.

    ``skipped`` names the files that were left out, ``reasons`` says why, one for each; ``remarks`` are what a user
    should know about the images.
    """

    name: str
    fingerprint: str
    num_classes: PositiveCount
    num_train: Count
    num_val: Count
    mean: tuple[Real, ...]
    std: tuple[Positive, ...]
    split_seed: Integer
    num_test: Count = 0
    class_names: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Device:
    """What trained and was measured on: ``type`` as in torch, the model's name, CPU threads of PyTorch."""

    type: str
    name: str | None = None
    threads: PositiveCount | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a cost that is not known in closed form was measured.

    Attributes:
        conditions: what must be equal for two measurements to stand on one axis, by name.
        baseline: cost of the unmodified backbone, in the unit of the cost's column.
    """

    conditions: Mapping[str, Any]
    baseline: Positive


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the run may take (None: no limit), and the seconds that it has spent."""

    seconds: NonNegative | None = None
    trials: Count | None = None
    spent: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A run that this one began with.

    Attributes:
        run: its folder.
        differs: what makes its readings another measurement; empty if they were taken over as readings. Otherwise it is
            prior knowledge of where SE pays.
        trainings: how many of its trainings count.
        effects: of a block by relative depth and γ, in points of accuracy (`se_nas.study.site_effects`); as prior
            knowledge.
        explained: the share of its accuracies' variance that these effects explain.
        trust: the share of the variance of the sampler's predictions that they explain here; None if unknown.
    """

    run: str
    differs: tuple[str, ...] = ()
    trainings: Count = 0
    effects: tuple[tuple[Real, ...], ...] = ()
    explained: Share | None = None
    trust: Share | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A finalist: why it was chosen, and its probability of being on the front after the search, 0 to 1."""

    key: str
    reason: str
    probability: Share


@dataclass(frozen=True, kw_only=True)
class Finals:
    """The final phase: finalists by importance, seeds for each, the most one could get, why it ended."""

    base_seeds: Count
    most_seeds: Count
    ended: str | None = None
    chosen: tuple[Chosen, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A run as its folder describes it.

    Attributes:
        name: of the run.
        backbone: its timm name, with ``timm_kwargs`` for ``timm.create_model``.
        space: what was searched.
        sites: of the backbone, by position.
        data: the images, at ``input_size`` (channels, height, width).
        objectives: names from ``se_nas.objectives``, accuracy first.
        device: what the run ran on.
        measured: for every measured cost that is an objective or limited, by its name.
        start: of the candidates' trainings, "from scratch" or "fine-tuned from ..."; empty if unknown.
        checkpoint_fingerprint: SHA-256 of the file with the first weights; None without one.
        recipe: of the candidates' trainings, as ``Recipe.from_dict`` reads it.
        runtime, compile, packing: decisions about the machine, as training and study store them; None if unknown.
        executor: what trains elsewhere: its name, the resources of an actor, its version; None for this machine alone.
        epoch_seconds: what one epoch was timed at; None if it was not timed.
        budget: limits and what was spent.
        seed: of the search.
        created: when the run began (ISO 8601), by ``command`` with ``se_nas_version``.
        versions: of libraries, Python and the platform.
        status: "running", "interrupted" or "finished", and why it ended, in ``stop_reason``.
        provisional: whether the front rests on the search's own readings.
        warnings: what the user should know about the configuration.
        paths: where data, weights and the like were, as absolute paths, by the configuration's field.
        finals: the final phase; None without one.
        early_stopping: what the rule did (`se_nas.early_stopping`); None without a rule.
        importance, effects: what mattered (`se_nas.samplers.importance`).
        evidence: what the validation loss told of accuracy (`se_nas.samplers.pareto_sampler.Learned`); None if unknown.
        earlier: the runs that this one began with.
    """

    name: str
    backbone: str
    objectives: tuple[str, ...]
    space: Space
    data: Data
    input_size: tuple[PositiveCount, PositiveCount, PositiveCount]
    sites: Mapping[str, tuple[Site, ...]]
    device: Device
    recipe: Mapping[str, Any]
    timm_kwargs: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    checkpoint_fingerprint: str | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    compile: Mapping[str, Any] | None = None
    packing: Mapping[str, Any] | None = None
    executor: Mapping[str, Any] | None = None
    epoch_seconds: NonNegative | None = None
    budget: Budget = field(default_factory=Budget)
    seed: Integer | None = None
    created: str | None = None
    se_nas_version: str | None = None
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    status: str = RUNNING
    provisional: Switch = True
    stop_reason: str | None = None
    warnings: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    finals: Finals | None = None
    early_stopping: Mapping[str, Any] | None = None
    importance: Mapping[str, Any] | None = None
    effects: tuple[Mapping[str, Any], ...] = ()
    evidence: Mapping[str, Any] | None = None
    earlier: tuple[Earlier, ...] = ()

    @classmethod
    def from_json(cls, data: Any, where: str = "the manifest") -> Manifest:
        """From the parsed file, of this layout or an older one; fields that it lacks get their defaults.

        Args:
            data: what ``to_json`` or an earlier version wrote.
            where: the file, for messages.

        Raises:
            RunError: it is damaged, or its layout is newer than ``SCHEMA``.
        """
        check_schema(data, SCHEMA, where, RunError)
        current = _of_schema_1(data) if data["schema"] == 1 else data
        try:
            return parse(cls, {name: value for name, value in current.items() if name != "schema"})
        except ValueError as error:
            raise RunError(f"{where} is damaged: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; ``from_json`` gives an equal manifest back."""
        return {"schema": SCHEMA} | asdict(self)

    def updated(self, where: str = "the manifest", **changes: Any) -> Manifest:
        """With some fields replaced, by values of their types or the JSON form of those; checked."""
        unknown = changes.keys() - self.__dataclass_fields__.keys()
        assert not unknown, f"a manifest has no {', '.join(sorted(unknown))}"
        given = {
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in changes.items()
        }
        return Manifest.from_json(self.to_json() | given, where)


def _of_schema_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Layout 1 had two keys for the one measured cost that it knew, and another name for a mode of it."""
    rest = dict(data)
    conditions, baseline = rest.pop("latency", None), rest.pop("baseline_latency_ms", None)
    if conditions is not None:
        if isinstance(conditions, Mapping) and conditions.get("mode") == "cudagraph":
            conditions = {**conditions, "mode": "graph"}
        rest["measured"] = {"latency": {"conditions": conditions, "baseline": baseline}}
    return rest
