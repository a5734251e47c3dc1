"""What every logger of trials implements, and what it is given to log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from se_nas.run import FINAL, Manifest, cost_columns

Row = Mapping[str, Any]
"""A row of ``trials.json``: ``se_nas.run.ROW_FIELDS``."""
RETRAINED = "retrained"
"""Phase of the row of a retraining, which is no trial of a study."""
UNFINISHED = ("running", "unfinished")
"""States of a trial that goes on later."""
_ARCHITECTURE = ("key", "description", "position", "widths", "params", "gate", "act", "bias")
_ORDER = ("number", "phase", "baseline", "seed", "epochs_planned")
_RESULTS = ("accuracy", "top5", "loss", "train_loss", "ece", "test_accuracy", "epochs", "seconds")


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """The study that all runs belong to.

    Attributes:
        name: of the run folder.
        identity: the same whenever the study goes on, and no other study's.
        folder: where a logger may keep files.
        facts: what is searched, by name; no address of a database.
    """

    name: str
    identity: str
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, folder: Path) -> StudyFacts:
        """The study that a manifest describes; ``folder`` is for the loggers' files."""
        begun = f"{manifest.name} {manifest.created} {manifest.space.fingerprint} {manifest.data.fingerprint}"
        facts = {
            "backbone": manifest.backbone,
            "data": manifest.data.name,
            "space": manifest.space.name,
            "objectives": ",".join(manifest.objectives),
            "start": manifest.start,
            "seed": manifest.seed,
            "se_nas_version": manifest.se_nas_version,
        }
        identity = hashlib.sha256(begun.encode()).hexdigest()[:12]
        return cls(name=manifest.name, identity=identity, folder=folder, facts=facts)


class RunLogger(Protocol):
    """Keeps one run for each trial. All calls come from one thread; whatever is raised is reported once.

    Making one must not talk to a server yet.
    """

    def __init__(self, study: StudyFacts) -> None: ...

    @staticmethod
    def check() -> None:
        """Raise ConfigError if its package is missing, or the user has to set something up first."""

    def begin(self, row: Row) -> int:
        """Open the run of a trial, new or again (after an error, too); returns the epochs that it holds already."""

    def epoch(self, row: Row, entry: Mapping[str, Any]) -> None:
        """Add one entry of the trial's ``curve``."""

    def end(self, row: Row) -> None:
        """Add the results of a trial, and close its run. An "unfinished" one may be begun again later."""

    def close(self) -> None:
        """Nothing more is logged by this process."""


def run_name(row: Row) -> str:
    """``trial-007``."""
    return f"trial-{row['number']:03}"


def labels(row: Row) -> list[str]:
    """The phase ("search", "final" or "retrained"), and "baseline" with its role if the trial is one."""
    phase = row["phase"] if row["phase"] in (FINAL, RETRAINED) else "search"
    return [phase, *(["baseline", str(row["baseline"])] if row.get("baseline") else [])]


def described(row: Row) -> dict[str, Any]:
    """What a trial is: its place in the study and its architecture."""
    return {name: row[name] for name in (*_ORDER, *_ARCHITECTURE) if row.get(name) is not None}


def flat(values: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Values of one level: those of a mapping as ``name.key``, lists as text."""
    found: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in flat(value).items()}
        else:
            found[name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def results(row: Row) -> dict[str, int | float]:
    """Costs and what the training gave, as far as they are known."""
    return numbers({name: row.get(name) for name in (*cost_columns({}), *_RESULTS)})


def numbers(entry: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers of an epoch, or of a result."""
    return {
        name: value
        for name, value in entry.items()
        if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
    }
