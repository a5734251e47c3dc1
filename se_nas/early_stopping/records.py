"""What early stopping knows about each candidate, and where it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna import Study

RECORD = "se_nas:curve"
"""User attribute of a trial with its `Record`; each worker writes only that of its trial."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is known of a candidate before it is trained.

    Attributes:
        number: identifies it in the run (the trial's number).
        costs: each is minimised.
        features: further numbers that its learning curve may depend on, the same ones for all candidates, such
            as the share of sites with SE. The costs are used in any case.
        network: identifies the network if one may have several readings, which then count by their mean.
            None: this candidate is the only reading.
    """

    number: int
    costs: tuple[float, ...]
    features: tuple[float, ...] = ()
    network: str | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A candidate's row in the table of rungs.

    Attributes:
        rungs: epoch of each rung reached to the accuracy there.
        final: accuracy after all epochs; None unless it got there.
        stopped: epoch at which it was stopped; None otherwise.
        control: it is one of the share that always runs to the end.
        would_stop: epoch at which the rule would have stopped a control; None if it would not.
    """

    candidate: Candidate
    rungs: dict[int, float] = field(default_factory=dict)
    final: float | None = None
    stopped: int | None = None
    control: bool = False
    would_stop: int | None = None


class Table(Protocol):
    """Where the records of a run are kept."""

    def records(self) -> Iterable[Record]: ...

    def write(self, record: Record) -> None: ...


class MemoryTable:
    """The records of one process."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}

    def records(self) -> list[Record]:
        return list(self._records.values())

    def write(self, record: Record) -> None:
        self._records[record.candidate.number] = record


class StudyTable:
    """The records in an Optuna study, as user attributes of its trials; any number of workers may share it.

    A candidate's number is its trial's number. Trials with the attribute of another schema are ignored.
    """

    def __init__(self, study: Study) -> None:
        self._study = study

    def records(self) -> list[Record]:
        rows = (trial.user_attrs.get(RECORD) for trial in self._study.get_trials(deepcopy=False))
        return [record for row in rows if row is not None and (record := _from_json(row)) is not None]

    def write(self, record: Record) -> None:
        storage = self._study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(
            self._study._study_id, record.candidate.number
        )
        storage.set_trial_user_attr(trial_id, RECORD, asdict(record) | {"schema": 1})


def _from_json(row: Any) -> Record | None:
    try:
        if row["schema"] != 1:
            return None
        given = row["candidate"]
        candidate = Candidate(
            number=given["number"],
            costs=tuple(given["costs"]),
            features=tuple(given["features"]),
            network=given.get("network"),
        )
        rungs = {int(epoch): float(value) for epoch, value in row["rungs"].items()}
        rest = {name: row[name] for name in ("final", "stopped", "control", "would_stop")}
        return Record(candidate=candidate, rungs=rungs, **rest)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def finished(records: Iterable[Record]) -> list[Record]:
    """Those that were trained to their end."""
    return [record for record in records if record.final is not None]


def network_of(record: Record) -> str | int:
    """What the record is a reading of."""
    network = record.candidate.network
    return record.candidate.number if network is None else network


def by_network(done: Sequence[Record]) -> dict[str | int, Record]:
    """The first record of every network, with the mean of its finished readings: a maximum would be luck."""
    readings: dict[str | int, list[Record]] = {}
    for record in done:
        readings.setdefault(network_of(record), []).append(record)
    return {
        network: replace(same[0], final=sum(r.final or 0.0 for r in same) / len(same))
        for network, same in readings.items()
    }


def is_no_more_expensive(one: Record, other: Record) -> bool:
    """Whether no cost of ``one`` is above that of ``other``."""
    return all(a <= b for a, b in zip(one.candidate.costs, other.candidate.costs, strict=True))


def dominates(one: Record, other: Record) -> bool:
    """Whether ``one`` finished no worse than ``other`` in accuracy and all costs, and better in one of them."""
    if one.final is None or other.final is None:
        return False
    if not is_no_more_expensive(one, other) or one.final < other.final:
        return False
    return one.final > other.final or one.candidate.costs != other.candidate.costs
