"""ParetoReport: a run's candidates, its front and what the front rests on; a versioned file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from se_nas.errors import ConfigError, RunError
from se_nas.pareto import (
    SeedModel,
    hypervolume,
    hypervolume_interval,
    non_dominated,
    probability_non_dominated,
    reference_point,
)
from se_nas.report.candidates import OBJECTIVES, Candidate, Objective, group
from se_nas.report.per_image import Bits, from_text, hits_by_seed, read_bits, to_text
from se_nas.run import CONFIG, MANIFEST, REPORT, TRIALS, RunFolder, read_json, write_json
from se_nas.sites import Site, site_from_dict

SCHEMA = 1
KIND = "se-nas report"
# Fitting takes the cube of the readings: beyond this only the candidates with repeats enter, and a front of
# single readings shows no intervals, as it does where nothing repeats.
_MAX_FITTED = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class ParetoReport:
    """A run as its manifest and its table of trials say it.

    The front is taken over the means of the final readings (full schedule, fresh seeds) where the run has
    them, and is then ``final``; otherwise over the search's own readings, and is provisional: the best of
    many single readings is partly luck. Stopped, unfinished, diverged, failed and infeasible trials are kept
    in ``candidates`` but never stand on the front.

    Attributes:
        manifest: ``manifest.json`` of the run.
        rows: ``trials.json`` of the run, one dictionary a trial.
        source: the run folder as it was given, for the commands that a report prints.
        config: ``config.json`` of the run; empty where there is none.
        correct: by trial number, which validation images its final training classified right, shape (images,),
            as far as that was kept.
    """

    manifest: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    source: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    correct: Mapping[int, Bits] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> ParetoReport:
        """From a run folder, or from a file that ``save`` wrote.

        Raises:
            RunError: nothing is there, it is damaged, or its schema is newer than this program's.
        """
        path = Path(path)
        return cls._from_file(path) if path.is_file() else cls.from_run(path)

    @classmethod
    def from_run(cls, path: str | Path) -> ParetoReport:
        """From a run folder; errors as for ``load``."""
        folder = RunFolder.open(path)
        config = folder.config if (folder.path / CONFIG).is_file() else {}
        rows = _checked_rows(folder.rows())
        report = cls(
            manifest=folder.manifest,
            rows=rows,
            source=str(path),
            config=config,
            correct=read_bits(folder, rows),
        )
        report._check(str(path))
        return report

    @classmethod
    def _from_file(cls, path: Path) -> ParetoReport:
        if path.name in (MANIFEST, TRIALS):
            return cls.from_run(path.parent)
        data = read_json(path)
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise RunError(
                f"{path} is no report of se-nas: give a run folder or a {REPORT} that se-nas saved."
            )
        schema = data.get("schema")
        if not isinstance(schema, int):
            raise RunError(f"{path} is damaged: its schema is {schema!r}.")
        if schema > SCHEMA:
            raise RunError(
                f"{path} has schema {schema}; this version of se-nas reads up to {SCHEMA}. Upgrade se-nas."
            )
        missing = [name for name in ("manifest", "trials") if name not in data]
        if missing:
            raise RunError(f"{path} is damaged: it lacks {', '.join(missing)}.")
        report = cls(
            manifest=data["manifest"],
            rows=_checked_rows(data["trials"]),
            source=data.get("source"),
            config=data.get("config") or {},
            correct=from_text(data.get("correct")),
        )
        report._check(str(path))
        return report

    def _check(self, path: str) -> None:
        """Read everything once, so that damage shows on loading and names the file."""
        try:
            _ = self.objectives, self.sites, self._grouped
        except RunError as error:
            raise RunError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise RunError(f"{path} is damaged: {type(error).__name__}: {error}.") from error

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON, whole or not at all; ``load`` gives an equal report back."""
        path = Path(path)
        write_json(path, self.to_dict())
        return path

    @property
    def name(self) -> str:
        return str(self.manifest.get("name") or (Path(self.source).name if self.source else "run"))

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """Accuracy first, then the costs in the order of the run."""
        names = list(self.manifest["objectives"])
        unknown = [name for name in names if name not in OBJECTIVES]
        if unknown or names[:1] != ["accuracy"] or len(names) < 2:
            raise RunError(
                f"the objectives are {names}; they must be accuracy and then at least one of"
                f" {', '.join(name for name in OBJECTIVES if name != 'accuracy')}."
            )
        return tuple(OBJECTIVES[name] for name in names)

    @property
    def costs(self) -> tuple[Objective, ...]:
        return self.objectives[1:]

    @property
    def directions(self) -> list[str]:
        return [objective.direction for objective in self.objectives]

    @cached_property
    def sites(self) -> dict[str, tuple[Site, ...]]:
        """Sites of the backbone by position."""
        return {
            position: tuple(site_from_dict(site) for site in sites)
            for position, sites in (self.manifest.get("sites") or {}).items()
        }

    @cached_property
    def final(self) -> bool:
        """Whether the front rests on final readings; otherwise it is provisional."""
        return not self.manifest.get("provisional") and any(
            row.get("phase") == "final" and row.get("state") == "complete" and row.get("accuracy") is not None
            for row in self.rows
        )

    @property
    def label(self) -> str:
        """What the accuracies of the front are, in words."""
        if not self.front:
            return "no candidate has finished yet"
        counts = sorted({len(candidate.counted) for candidate in self.front})
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        if self.final:
            noun = "seed" if counts == [1] else "seeds"
            return f"final: mean of {seeds} {noun} at the full schedule"
        noun = "reading" if counts == [1] else "readings"
        luck = f"best of {len(self.counted)}; not retrained"
        return f"provisional: {seeds} {noun} of the search a candidate, {luck}"

    @cached_property
    def _grouped(self) -> list[Candidate]:
        return group(self.rows, self.sites, final=self.final)

    @cached_property
    def _read(self) -> dict[str, int]:
        """Keys of the candidates that noise is fitted on, with their places in ``noise``."""
        members = [candidate for candidate in self._grouped if candidate.counted]
        if sum(len(candidate.counted) for candidate in members) > _MAX_FITTED:
            members = [candidate for candidate in members if len(candidate.by_seed) > 1]
        return {candidate.key: place for place, candidate in enumerate(members)}

    @cached_property
    def _fitted(self) -> list[Candidate]:
        return [candidate for candidate in self._grouped if candidate.key in self._read]

    @cached_property
    def seed_noise(self) -> SeedModel | None:
        """Mean accuracies with their joint uncertainty over seeds; None where nothing was read twice."""
        return SeedModel.fit([candidate.by_seed for candidate in self._fitted])

    @cached_property
    def noise(self) -> SeedModel | None:
        """``seed_noise``, and what the choice of validation images adds, where ``over_images``."""
        found = hits_by_seed(self._fitted, self.correct) if self.seed_noise is not None else None
        return (
            self.seed_noise
            if self.seed_noise is None or found is None
            else self.seed_noise.with_images(found)
        )

    @property
    def over_images(self) -> bool:
        """Whether intervals cover the choice of validation images beside that of seeds."""
        return self.noise is not self.seed_noise

    @property
    def basis(self) -> str:
        """What intervals are over, in words."""
        return "over seeds and validation images" if self.over_images else "over seeds"

    @property
    def seed_deviation(self) -> float | None:
        """Standard deviation of one accuracy reading over seeds, in points."""
        return None if self.noise is None else math.hypot(self.noise.sd, self.noise.seed_sd)

    def standard_error(self, candidate: Candidate) -> float | None:
        """Of a mean accuracy over seeds, in points; None where nothing was read twice."""
        place = self._read.get(candidate.key)
        if self.seed_noise is None or place is None:
            return None
        return math.sqrt(self.seed_noise.covariance[place, place])

    def deviation(self, candidate: Candidate, other: Candidate | None = None) -> float | None:
        """Half of the 95 % interval of a mean accuracy, or of its difference to another's, by shared seeds.

        None where nothing was read twice, or a candidate has no counted reading.
        """
        place = self._read.get(candidate.key)
        if self.noise is None or place is None:
            return None
        if other is None:
            return float(self.noise.half_width[place])
        rival = self._read.get(other.key)
        return None if rival is None else self.noise.difference(place, rival)[1]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate, in order of its first trial."""
        levels = [replace(candidate, accuracy=self._level(candidate)) for candidate in self._grouped]
        standing = [candidate for candidate in levels if self._values(candidate) is not None]
        values = self.values(standing)
        keys = [candidate.key for candidate in standing]
        on_front = dict(zip(keys, non_dominated(values, self.directions).tolist(), strict=True))
        probability = {}
        if self.noise is not None and self.final:
            # Shrunk levels judge membership best: the best of several means is best partly by luck.
            draws = self._draws(self.noise.shrunk(), standing)
            shares = probability_non_dominated(draws, values[:, 1:], self.directions)
            probability = dict(zip(keys, shares.tolist(), strict=True))
        return tuple(
            replace(
                candidate,
                on_front=on_front.get(candidate.key, False),
                probability=probability.get(candidate.key),
                accuracy_interval=self._accuracy_interval(candidate),
            )
            for candidate in levels
        )

    def _level(self, candidate: Candidate) -> float | None:
        """The mean over seeds; where candidates have different seeds, with the seeds' levels taken off."""
        place = self._read.get(candidate.key)
        return candidate.accuracy if self.noise is None or place is None else float(self.noise.mean[place])

    def _accuracy_interval(self, candidate: Candidate) -> tuple[float, float] | None:
        half_width = self.deviation(candidate)
        if candidate.accuracy is None or half_width is None:
            return None
        return candidate.accuracy - half_width, candidate.accuracy + half_width

    def _draws(self, noise: SeedModel, members: Sequence[Candidate], count: int = 4000) -> np.ndarray:
        """Joint draws of the members' accuracies, shape (count, members)."""
        places = [self._read[candidate.key] for candidate in members]
        return noise.draw(np.random.default_rng(0), count)[:, places]

    def _values(self, candidate: Candidate) -> list[float] | None:
        values = [candidate.value(objective) for objective in self.objectives]
        return None if any(value is None for value in values) else [float(value or 0) for value in values]

    @cached_property
    def counted(self) -> tuple[Candidate, ...]:
        """Candidates that stand for the front: a counted accuracy and every cost known."""
        return tuple(candidate for candidate in self.candidates if self._values(candidate) is not None)

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """The non-dominated candidates, cheapest first; equal ones all stand."""
        members = [candidate for candidate in self.candidates if candidate.on_front]
        cost = self.costs[0]
        return tuple(sorted(members, key=lambda member: (member.value(cost) or 0, -(member.accuracy or 0))))

    @cached_property
    def baselines(self) -> tuple[Candidate, ...]:
        """The baselines, on the front or not: plain backbone, SE everywhere, native SE, last stage."""
        return tuple(candidate for candidate in self.candidates if candidate.baselines)

    @cached_property
    def plain(self) -> Candidate | None:
        """The plain backbone."""
        return next((candidate for candidate in self.baselines if "plain" in candidate.baselines), None)

    @cached_property
    def reference(self) -> tuple[float, ...]:
        """Reference point of this run's hypervolume: a tenth of the range beyond the worst counted value."""
        if not self.counted:
            raise RunError("no candidate has finished yet, so there is no reference point.")
        return tuple(reference_point([self.values(self.counted)], self.directions).tolist())

    def values(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """Objective values, shape (candidates, objectives), in the fields' own units."""
        rows = [self._values(candidate) for candidate in candidates]
        return np.array([row for row in rows if row is not None]).reshape(-1, len(self.objectives))

    def hypervolume(self, reference: Sequence[float] | None = None) -> float:
        """Hypervolume of the front, in the product of the objectives' own units (percent times ms, say)."""
        if not self.front:
            return 0.0
        point = self.reference if reference is None else reference
        return hypervolume(self.values(self.front), point, self.directions)

    @cached_property
    def hypervolume_interval(self) -> tuple[float, float] | None:
        """95 % interval of the hypervolume, of the same ``basis``; None without final readings that repeat."""
        if self.noise is None or not self.final or not self.front:
            return None
        values, draws = self.values(self.counted), self._draws(self.noise, self.counted, count=1000)
        return hypervolume_interval(values[:, 0], draws, values[:, 1:], self.reference, self.directions)

    def to_dict(self) -> dict[str, Any]:
        """The saved form: manifest and trials are the truth; the rest is derived, for other programs."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "name": self.name,
            "source": self.source,
            "final": self.final,
            "label": self.label,
            "objectives": [
                {"name": item.name, "field": item.field, "direction": item.direction}
                for item in self.objectives
            ],
            "reference": list(self.reference) if self.counted else None,
            "hypervolume": self.hypervolume(),
            "hypervolume_interval": self.hypervolume_interval and list(self.hypervolume_interval),
            "seed_deviation": self.seed_deviation,
            "basis": self.basis if self.noise is not None else None,
            "front": [candidate.key for candidate in self.front],
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "config": dict(self.config),
            "manifest": dict(self.manifest),
            "trials": [dict(row) for row in self.rows],
            "correct": to_text(self.correct),
        }


def _checked_rows(rows: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RunError("the table of trials is damaged: it must be a list of rows.")
    return tuple(rows)
