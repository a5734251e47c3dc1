"""Candidates: the rows of ``trials.json`` grouped by architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from se_nas.objectives import COSTS, Objective
from se_nas.report.placement import StagePlacement, by_stage, in_words
from se_nas.run import FINAL, SEARCH, CostReading, TrialRow, cost_columns
from se_nas.sites import Site

BASELINE_NAMES = {
    "plain": "plain backbone",
    "all_se_16": "SE everywhere, γ=16",
    "native": "the backbone's own SE",
    "last_stage": "SE in the last stage",
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An architecture in a study, with everything that was read about it.

    ``readings`` are its trials, ``counted`` those of them that count for the front. ``accuracy`` is the mean over
    the counted ones, in percent (None if none counts), ``accuracy_interval`` its 95 % interval (over what,
    ``ParetoReport.basis`` says). ``costs`` holds what is known, by the name of the objective. ``probability`` is
    the bootstrap probability of being non-dominated.
    """

    number: int
    key: str
    description: str
    baselines: tuple[str, ...]
    position: str | None
    sites: tuple[Site, ...]
    widths: tuple[int, ...]
    params: Mapping[str, Any]
    gate: str | None
    act: str | None
    bias: bool | None
    costs: Mapping[str, CostReading]
    readings: tuple[TrialRow, ...]
    counted: tuple[TrialRow, ...]
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None = None
    on_front: bool = False
    probability: float | None = None

    @cached_property
    def placement(self) -> str:
        """Where SE sits, in words; its description if the sites are not known."""
        return in_words(self.stages) if self.stages else self.description

    @cached_property
    def stages(self) -> tuple[StagePlacement, ...]:
        """Where SE sits, by stage; empty if the sites are not known."""
        known = len(self.sites) == len(self.widths) > 0
        return tuple(by_stage(self.sites, self.widths)) if known else ()

    @property
    def num_params(self) -> int | None:
        """Number of parameters."""
        return self._cost("params")

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image, as fvcore counts them."""
        return self._cost("macs")

    @property
    def activations(self) -> int | None:
        """Number of activations of one image."""
        return self._cost("activations")

    @property
    def latency_ms(self) -> float | None:
        """Latency in milliseconds."""
        return self._cost("latency")

    @property
    def latency_ratio(self) -> float | None:
        """Latency as a multiple of the plain backbone's."""
        return self.costs["latency"].ratio if "latency" in self.costs else None

    def _cost(self, name: str) -> Any:
        return self.costs[name].value if name in self.costs else None

    @property
    def baseline(self) -> str | None:
        """The first of its roles as a baseline: plain, all_se_16, native or last_stage."""
        return self.baselines[0] if self.baselines else None

    @property
    def name(self) -> str:
        """What a person calls it: its role as a baseline, or where SE sits."""
        return BASELINE_NAMES.get(self.baselines[0], self.baselines[0]) if self.baselines else self.placement

    @cached_property
    def searched(self) -> tuple[TrialRow, ...]:
        """Complete readings of the search phase."""
        return tuple(reading for reading in self.readings if reading.phase == SEARCH and reading.complete)

    @cached_property
    def final(self) -> tuple[TrialRow, ...]:
        """Complete readings of the final phase: full schedule, seeds not seen by the selection."""
        return tuple(reading for reading in self.readings if reading.phase == FINAL and reading.complete)

    @cached_property
    def selection_accuracy(self) -> float | None:
        """Mean accuracy that the search read, by which the candidate was selected."""
        return mean_accuracy(self.searched)

    @property
    def test_accuracy(self) -> float | None:
        """Mean over the counted readings that saw the test split."""
        values = [reading.test_accuracy for reading in self.counted if reading.test_accuracy is not None]
        return fmean(values) if values else None

    @cached_property
    def state(self) -> str:
        """complete if one of its readings is; otherwise the state of the last one."""
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
        """In the unit of the objective's column; None if it is not known."""
        value = self._cost(objective.name) if objective.name in COSTS else self.accuracy
        return None if value is None else float(value)

    def interval(self, cost: Objective) -> tuple[float, float] | None:
        """95 % interval of a cost, in the unit of its column; None if it has none."""
        reading = self.costs.get(cost.name)
        if reading is None or reading.interval is None or reading.ratio is None:
            return None
        unit = reading.value / reading.ratio
        return reading.interval[0] * unit, reading.interval[1] * unit

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
            **cost_columns(self.costs),
            "trials": [reading.number for reading in self.readings],
            "counted": [reading.number for reading in self.counted],
        }


def mean_accuracy(readings: Sequence[TrialRow]) -> float | None:
    """Mean over the readings that have an accuracy, in percent; None if none has."""
    values = [reading.accuracy for reading in readings if reading.accuracy is not None]
    return fmean(values) if values else None


def group(rows: Sequence[TrialRow], sites: Mapping[str, Sequence[Site]], *, final: bool) -> list[Candidate]:
    """One candidate per key, in order of its first trial.

    For a final front, the final readings count. For a provisional one, those of both phases do, as long as their
    schedule is the search's: on another schedule all accuracies differ.
    """
    members: dict[str, list[TrialRow]] = {}
    for row in rows:
        members.setdefault(row.key, []).append(row)
    schedules = {row.epochs_planned for row in rows if row.phase == SEARCH and row.complete}

    def counts(row: TrialRow) -> bool:
        if not row.complete:
            return False
        return row.phase == FINAL if final else row.phase == SEARCH or row.epochs_planned in schedules

    return [_candidate(tuple(readings), sites, counts) for readings in members.values()]


def _candidate(
    readings: tuple[TrialRow, ...], sites: Mapping[str, Sequence[Site]], counts: Callable[[TrialRow], bool]
) -> Candidate:
    first = readings[0]
    counted = tuple(reading for reading in readings if counts(reading))
    here = tuple(sites.get(first.position or "", ()))
    return Candidate(
        number=first.number,
        key=first.key,
        description=first.description or first.key,
        baselines=tuple(dict.fromkeys(reading.baseline for reading in readings if reading.baseline)),
        position=first.position,
        sites=here,
        widths=first.widths,
        params=first.params,
        gate=first.gate,
        act=first.act,
        bias=first.bias,
        costs=first.costs
        if len(readings) == 1
        else {name: cost for name in COSTS if (cost := _cost(readings, name)) is not None},
        readings=readings,
        counted=counted,
        accuracy=mean_accuracy(counted),
    )


def _cost(readings: Sequence[TrialRow], name: str) -> CostReading | None:
    """What stands for the candidate: the last measured value, or else the last predicted one."""
    known = [reading.costs[name] for reading in readings if name in reading.costs]
    measured = [cost for cost in known if cost.measured]
    best = measured or known
    return best[-1] if best else None
