"""Candidates and their readings: the rows of ``trials.json`` grouped by architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from typing import Any

from se_nas.errors import RunError
from se_nas.report.placement import placement
from se_nas.sites import Site

BASELINE_NAMES = {
    "plain": "plain backbone",
    "all_se_16": "SE everywhere, γ=16",
    "native": "the backbone's own SE",
    "last_stage": "SE in the last stage",
}
_REQUIRED = ("number", "key", "widths", "phase", "state")
_AS_IS = (
    *("accuracy", "top5", "loss", "train_loss", "ece", "test_accuracy"),
    *("latency_ms", "latency_ratio", "latency_source", "seconds", "error"),
)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A quantity that the front trades: ``field`` of a candidate, direction, and how it is written."""

    name: str
    field: str
    direction: str
    unit: str
    scale: float = 1.0
    """Values are divided by this to be given in ``unit``."""

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.direction == "maximize" else -1


OBJECTIVES = {
    "accuracy": Objective(name="accuracy", field="accuracy", direction="maximize", unit="%"),
    "latency": Objective(name="latency", field="latency_ms", direction="minimize", unit="ms"),
    "macs": Objective(name="macs", field="macs", direction="minimize", unit="G", scale=1e9),
    "params": Objective(name="params", field="num_params", direction="minimize", unit="M", scale=1e6),
    "activations": Objective(
        name="activations", field="activations", direction="minimize", unit="M", scale=1e6
    ),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One training of a candidate: a row of ``trials.json``.

    ``accuracy``, ``top5`` and ``test_accuracy`` are in percent, ``ece`` is from 0 to 1, ``seconds`` is the
    training's own time without waiting, ``started`` and ``finished`` are seconds since the epoch,
    ``latency_interval`` is the 95 % interval of the ratio to the plain backbone.
    """

    number: int
    seed: int | None
    phase: str
    state: str
    epochs: int
    epochs_planned: int
    accuracy: float | None
    top5: float | None
    loss: float | None
    train_loss: float | None
    ece: float | None
    test_accuracy: float | None
    curve: tuple[Mapping[str, Any], ...] = field(repr=False)
    latency_ms: float | None
    latency_ratio: float | None
    latency_interval: tuple[float, float] | None
    latency_source: str | None
    seconds: float | None
    started: float | None
    finished: float | None
    error: str | None

    @property
    def complete(self) -> bool:
        """Trained to the end of its schedule, with an accuracy."""
        return self.state == "complete" and self.accuracy is not None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Reading:
        interval = row.get("latency_interval")
        return cls(
            number=row["number"],
            seed=row.get("seed"),
            phase=row["phase"],
            state=row["state"],
            epochs=row.get("epochs") or 0,
            epochs_planned=row.get("epochs_planned") or 0,
            curve=tuple(row.get("curve") or ()),
            latency_interval=(interval[0], interval[1]) if interval else None,
            started=_timestamp(row.get("started")),
            finished=_timestamp(row.get("finished")),
            **{name: row.get(name) for name in _AS_IS},
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An architecture in a study with everything that was read about it.

    ``accuracy`` is the mean over the readings that count for the front, in percent (None where none counts),
    ``accuracy_interval`` its 95 % interval (over what, ``ParetoReport.basis`` says). ``latency_interval`` is
    that of the ratio to the plain backbone. ``probability`` is the bootstrap probability of being non-dominated.
    """

    number: int
    key: str
    description: str
    placement: str
    baselines: tuple[str, ...]
    position: str | None
    widths: tuple[int, ...]
    params: Mapping[str, Any]
    gate: str | None
    act: str | None
    bias: bool | None
    num_params: int | None
    macs: int | None
    activations: int | None
    latency_ms: float | None
    latency_ratio: float | None
    latency_interval: tuple[float, float] | None
    latency_source: str | None
    readings: tuple[Reading, ...]
    counted: tuple[Reading, ...]
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None = None
    on_front: bool = False
    probability: float | None = None

    @property
    def baseline(self) -> str | None:
        """The first of its roles as a baseline: plain, all_se_16, native or last_stage."""
        return self.baselines[0] if self.baselines else None

    @property
    def name(self) -> str:
        """What a person calls it: its role as a baseline, or where SE sits."""
        return BASELINE_NAMES.get(self.baselines[0], self.baselines[0]) if self.baselines else self.placement

    @property
    def searched(self) -> tuple[Reading, ...]:
        """Complete readings of the search phase."""
        return tuple(reading for reading in self.readings if reading.phase == "search" and reading.complete)

    @property
    def final(self) -> tuple[Reading, ...]:
        """Complete readings of the final phase: full schedule, seeds not seen by the selection."""
        return tuple(reading for reading in self.readings if reading.phase == "final" and reading.complete)

    @property
    def selection_accuracy(self) -> float | None:
        """Mean accuracy that the search read, by which the candidate was selected."""
        return mean_accuracy(self.searched)

    @property
    def test_accuracy(self) -> float | None:
        """Mean over the counted readings that saw the test split."""
        values = [reading.test_accuracy for reading in self.counted if reading.test_accuracy is not None]
        return fmean(values) if values else None

    @property
    def state(self) -> str:
        """complete where a reading is; else the state of the last one."""
        return "complete" if any(reading.complete for reading in self.readings) else self.readings[-1].state

    @property
    def by_seed(self) -> dict[int, float]:
        """Counted accuracy for each seed."""
        seeds: dict[int, list[float]] = {}
        for reading in self.counted:
            if reading.seed is not None and reading.accuracy is not None:
                seeds.setdefault(reading.seed, []).append(reading.accuracy)
        return {seed: fmean(values) for seed, values in seeds.items()}

    def value(self, objective: Objective) -> float | None:
        value = getattr(self, objective.field)
        return None if value is None else float(value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary; readings by the numbers of their trials."""
        return {
            "number": self.number,
            "key": self.key,
            "name": self.name,
            "placement": self.placement,
            "baselines": list(self.baselines),
            "state": self.state,
            "on_front": self.on_front,
            "probability": self.probability,
            "accuracy": self.accuracy,
            "accuracy_interval": self.accuracy_interval and list(self.accuracy_interval),
            "selection_accuracy": self.selection_accuracy,
            "test_accuracy": self.test_accuracy,
            "num_params": self.num_params,
            "macs": self.macs,
            "activations": self.activations,
            "latency_ms": self.latency_ms,
            "latency_ratio": self.latency_ratio,
            "latency_interval": self.latency_interval and list(self.latency_interval),
            "latency_source": self.latency_source,
            "trials": [reading.number for reading in self.readings],
            "counted": [reading.number for reading in self.counted],
        }


def mean_accuracy(readings: Sequence[Reading]) -> float | None:
    values = [reading.accuracy for reading in readings if reading.accuracy is not None]
    return fmean(values) if values else None


def group(
    rows: Sequence[Mapping[str, Any]], sites: Mapping[str, Sequence[Site]], *, final: bool
) -> list[Candidate]:
    """One candidate a key, in order of its first trial. Final readings count, or the search's.

    Raises:
        RunError: a row lacks a field.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for index, row in enumerate(rows):
        missing = [name for name in _REQUIRED if row.get(name) is None]
        if missing:
            raise RunError(f"the table of trials is damaged: row {index} lacks {', '.join(missing)}.")
        members.setdefault(row["key"], []).append(row)
    return [_candidate(key, own, sites, final) for key, own in members.items()]


def _candidate(
    key: str, rows: Sequence[Mapping[str, Any]], sites: Mapping[str, Sequence[Site]], final: bool
) -> Candidate:
    first = rows[0]
    readings = tuple(Reading.from_row(row) for row in rows)
    phase = "final" if final else "search"
    counted = tuple(reading for reading in readings if reading.phase == phase and reading.complete)
    own_sites = sites.get(first.get("position") or "", ())
    words = placement(own_sites, first["widths"]) if len(own_sites) == len(first["widths"]) > 0 else None
    description = first.get("description") or words or key
    latency = _latency(readings)
    return Candidate(
        number=first["number"],
        key=key,
        description=description,
        placement=words or description,
        baselines=tuple(dict.fromkeys(row["baseline"] for row in rows if row.get("baseline"))),
        position=first.get("position"),
        widths=tuple(first["widths"]),
        params=first.get("params") or {},
        gate=first.get("gate"),
        act=first.get("act"),
        bias=first.get("bias"),
        num_params=_first(rows, "num_params"),
        macs=_first(rows, "macs"),
        activations=_first(rows, "activations"),
        latency_ms=latency.latency_ms if latency else None,
        latency_ratio=latency.latency_ratio if latency else None,
        latency_interval=latency.latency_interval if latency else None,
        latency_source=latency.latency_source if latency else None,
        readings=readings,
        counted=counted,
        accuracy=mean_accuracy(counted),
    )


def _latency(readings: Sequence[Reading]) -> Reading | None:
    """The reading whose latency stands for the candidate: the last measured one, else the last predicted."""
    known = [reading for reading in readings if reading.latency_ms is not None]
    measured = [reading for reading in known if reading.latency_source == "measured"]
    best = measured or known
    return best[-1] if best else None


def _first(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((row[name] for row in rows if row.get(name) is not None), None)


def _timestamp(value: Any) -> float | None:
    """Seconds since the epoch from an ISO time or a number."""
    if value is None or isinstance(value, int | float):
        return value
    return datetime.fromisoformat(value).timestamp()
