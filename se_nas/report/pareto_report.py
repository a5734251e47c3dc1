"""ParetoReport: a run's candidates, its front and what the front rests on; a versioned file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from se_nas.arguments import checked
from se_nas.documents import without_collections
from se_nas.errors import RunError
from se_nas.objectives import COSTS, OBJECTIVES, Objective
from se_nas.pareto import (
    SeedModel,
    hypervolume,
    hypervolume_interval,
    non_dominated,
    probability_non_dominated,
    reference_point,
)
from se_nas.report.candidates import Candidate, group
from se_nas.report.decision import Decision
from se_nas.report.per_image import Bits, hits_by_seed, read_bits
from se_nas.run import (
    CONFIG,
    MANIFEST,
    TRIALS,
    Manifest,
    RunFolder,
    TrialRow,
    write_json,
)
from se_nas.sites import Site
from se_nas.wording import printable_data

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Fitting takes the cube of the readings: beyond this only the candidates with repeats enter, and a front of
# single readings shows no intervals, as if nothing had been repeated.
_MAX_FITTED = 400


@checked
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ParetoReport:
    """A run as its manifest and its table of trials describe it.

    If the finalists have their readings (full schedule, fresh seeds), the front is taken over the means of those
    and is ``final``. Otherwise it is provisional and taken over the means of all readings that there are: many
    candidates have only one, and the best of many single readings is partly luck. Stopped, unfinished, diverged,
    failed and infeasible trials are kept in ``candidates`` but never stand on the front.

    Attributes:
        manifest: ``manifest.json`` of the run.
        rows: ``trials.json`` of the run, one row per trial.
        source: the run folder as it was given, for the commands that a report prints.
        config: ``config.json`` of the run; empty if there is none.
        correct: by trial number, which validation images its final training classified correctly, shape
            (images,), as far as that was kept.
    """

    manifest: Manifest
    rows: tuple[TrialRow, ...]
    source: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    correct: Mapping[int, Bits] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"ParetoReport({self.name!r}: front of {len(self.front)} of {len(self.candidates)}; {self.label})"
        )

    def _repr_html_(self) -> str:
        # A page of a report, needed in notebooks only.
        from se_nas.report.notebook import report_html

        return report_html(self)

    def plot(self, *, cost: str | None = None, ax: Axes | None = None) -> Axes:
        """The front drawn by matplotlib, onto ``ax`` or new Axes, against the first cost or ``cost``.

        Raises:
            RunError: no candidate has finished, or the run has no such cost.
        """
        # A picture of a report, needed on request only.
        from se_nas.report.notebook import plot

        return plot(self, cost=cost, ax=ax)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per candidate, as in ``candidates.csv``: numbers unrounded, in the units of their columns."""
        import pandas as pd

        # A table of a report.
        from se_nas.report.tables import candidate_records

        return pd.DataFrame.from_records(candidate_records(self))

    @classmethod
    @checked
    def load(cls, path: str | Path) -> ParetoReport:
        """From a run folder, or from a file that ``save`` wrote.

        Raises:
            RunError: nothing is there, it is damaged, or its schema is newer than this program's.
        """
        path = Path(path)
        if not path.is_file():
            return cls.from_run(path)
        if path.name in (MANIFEST, TRIALS):
            return cls.from_run(path.parent)
        # The saved form is that of a report.
        from se_nas.report.saved import read_saved

        return read_saved(path)._checked(str(path))

    @classmethod
    @checked
    def from_run(cls, path: str | Path) -> ParetoReport:
        """From a run folder; errors as for ``load``."""
        folder = RunFolder.open(path)
        rows = folder.rows()
        report = cls(
            manifest=folder.manifest,
            rows=rows,
            source=str(path),
            config=folder.config if (folder.path / CONFIG).exists() else {},
            correct=read_bits(folder, rows),
        )
        return report._checked(str(path))

    def _checked(self, path: str) -> ParetoReport:
        """Itself, if its objectives are known."""
        try:
            _ = self.objectives
        except RunError as error:
            raise RunError(f"{path}: {error}") from error
        return self

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the report as JSON, whole or not at all; ``load`` gives an equal report back."""
        path = Path(path)
        with without_collections():
            write_json(path, self.to_dict())
        return path

    @property
    def name(self) -> str:
        """Of the run."""
        return self.manifest.name

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """Accuracy first, then the costs in the order of the run."""
        names = self.manifest.objectives
        if names[:1] != ("accuracy",) or len(names) < 2 or any(name not in COSTS for name in names[1:]):
            raise RunError(
                f"the objectives are {', '.join(map(repr, names)) or 'none'}; they must be accuracy and then at"
                f" least one of {', '.join(COSTS)}."
            )
        return tuple(OBJECTIVES[name] for name in names)

    @property
    def costs(self) -> tuple[Objective, ...]:
        return self.objectives[1:]

    @property
    def directions(self) -> list[str]:
        return [objective.direction for objective in self.objectives]

    @property
    def sites(self) -> Mapping[str, tuple[Site, ...]]:
        """Sites of the backbone by position."""
        return self.manifest.sites

    @cached_property
    def final(self) -> bool:
        """Whether the front rests on final readings; otherwise it is provisional."""
        return not self.manifest.provisional and any(
            row.phase == "final" and row.complete for row in self.rows
        )

    @property
    def label(self) -> str:
        """What the accuracies of the front are, in words."""
        if not self.front:
            return "no candidate has finished yet"
        counts = sorted({len(candidate.counted) for candidate in self.front})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        if self.final:
            noun = "seed" if counts == [1] else "seeds"
            return f"final: mean of {number} {noun} at the full schedule"
        noun = "reading" if counts == [1] else "readings"
        retrained = sum(bool(candidate.final) for candidate in self.counted)
        chosen = f"best of {len(self.counted)} candidates, {retrained or 'none'} of them retrained"
        return f"provisional: {number} {noun} per candidate; {chosen}"

    @cached_property
    def _grouped(self) -> list[Candidate]:
        with without_collections():
            return group(self.rows, self.sites, final=self.final)

    @cached_property
    def places(self) -> dict[str, int]:
        """Keys of the candidates that ``noise`` is fitted on, with their places in it."""
        members = [candidate for candidate in self._grouped if candidate.counted]
        if sum(len(candidate.counted) for candidate in members) > _MAX_FITTED:
            members = [candidate for candidate in members if len(candidate.by_seed) > 1]
        return {candidate.key: place for place, candidate in enumerate(members)}

    @cached_property
    def _fitted(self) -> list[Candidate]:
        return [candidate for candidate in self._grouped if candidate.key in self.places]

    @cached_property
    def seed_noise(self) -> SeedModel | None:
        """Mean accuracies with their joint uncertainty over seeds; None if nothing was read twice."""
        return SeedModel.fit([candidate.by_seed for candidate in self._fitted])

    @cached_property
    def noise(self) -> SeedModel | None:
        """``seed_noise``, with what the choice of validation images adds if ``over_images``."""
        found = hits_by_seed(self._fitted, self.correct) if self.seed_noise is not None else None
        return (
            self.seed_noise
            if self.seed_noise is None or found is None
            else self.seed_noise.with_images(found)
        )

    @property
    def over_images(self) -> bool:
        """Whether intervals cover the choice of validation images as well as that of seeds."""
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
        """Of a mean accuracy over seeds, in points; None if nothing was read twice."""
        place = self.places.get(candidate.key)
        if self.seed_noise is None or place is None:
            return None
        return math.sqrt(self.seed_noise.covariance[place, place])

    def deviation(self, candidate: Candidate, other: Candidate | None = None) -> float | None:
        """Half of the 95 % interval of a mean accuracy, or of its difference from another's, by shared seeds.

        None if nothing was read twice or a candidate has no counted reading.
        """
        place = self.places.get(candidate.key)
        if self.noise is None or place is None:
            return None
        if other is None:
            return float(self.noise.half_width[place])
        rival = self.places.get(other.key)
        return None if rival is None else self.noise.difference(place, rival)[1]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate, in order of its first trial."""
        # Most of many candidates have nothing to be replaced, and a copy takes longer than the look.
        levels = [
            candidate
            if (level := self._level(candidate)) == candidate.accuracy
            else replace(candidate, accuracy=level)
            for candidate in self._grouped
        ]
        standing = [candidate for candidate in levels if self.can_stand(candidate)]
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
                accuracy_interval=interval,
            )
            if (interval := self._accuracy_interval(candidate)) or on_front.get(candidate.key)
            else candidate
            for candidate in levels
        )

    def _level(self, candidate: Candidate) -> float | None:
        """The mean over seeds; if candidates have different seeds, with the levels of the seeds taken off."""
        place = self.places.get(candidate.key)
        return candidate.accuracy if self.noise is None or place is None else float(self.noise.mean[place])

    def _accuracy_interval(self, candidate: Candidate) -> tuple[float, float] | None:
        half_width = self.deviation(candidate)
        if candidate.accuracy is None or half_width is None:
            return None
        return candidate.accuracy - half_width, candidate.accuracy + half_width

    def _draws(self, noise: SeedModel, members: Sequence[Candidate], count: int = 4000) -> np.ndarray:
        """Joint draws of the members' accuracies, shape (count, members)."""
        places = [self.places[candidate.key] for candidate in members]
        return noise.draw(np.random.default_rng(0), count)[:, places]

    def _values(self, candidate: Candidate) -> list[float] | None:
        values = [candidate.value(objective) for objective in self.objectives]
        return None if any(value is None for value in values) else [float(value or 0) for value in values]

    @cached_property
    def counted(self) -> tuple[Candidate, ...]:
        """Candidates that can stand on the front."""
        return tuple(candidate for candidate in self.candidates if self.can_stand(candidate))

    def can_stand(self, candidate: Candidate) -> bool:
        """Whether a candidate can stand on the front: with a counted accuracy, and every cost known."""
        return self._values(candidate) is not None

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """The non-dominated candidates, cheapest first; of equal ones, all."""
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
    def drawn(self) -> Mapping[str, Any]:
        """What pictures show, as plain data (`se_nas.report.chart_data`), with control characters as escapes."""
        # Pictures are made of a report.
        from se_nas.report.chart_data import view

        with without_collections():
            return printable_data(view(self))

    @cached_property
    def csv(self) -> str:
        """The text of ``candidates.csv``: a header, then one line per candidate."""
        # A table of a report.
        from se_nas.report.tables import candidates_csv

        with without_collections():
            return candidates_csv(self)

    @cached_property
    def decision(self) -> Decision:
        """What to do: use one of the networks, or keep the plain backbone."""
        # A decision is taken on a report.
        from se_nas.report.deciding import decide

        return decide(self)

    @cached_property
    def reference(self) -> tuple[float, ...]:
        """Reference point of this run's hypervolume: a tenth of the range beyond the worst counted value."""
        if not self.counted:
            raise RunError("no candidate has finished yet, so there is no reference point.")
        return tuple(reference_point([self.values(self.counted)], self.directions).tolist())

    def values(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """Objective values, shape (candidates, objectives), in the units of their columns."""
        rows = [self._values(candidate) for candidate in candidates]
        return np.array([row for row in rows if row is not None]).reshape(-1, len(self.objectives))

    def hypervolume(self, reference: Sequence[float] | None = None) -> float:
        """Hypervolume of the front, in the product of the columns' units (percent times ms, say)."""
        if not self.front:
            return 0.0
        point = self.reference if reference is None else reference
        return hypervolume(self.values(self.front), point, self.directions)

    @cached_property
    def hypervolume_interval(self) -> tuple[float, float] | None:
        """95 % interval of the hypervolume, on the same ``basis``; None without repeated final readings."""
        if self.noise is None or not self.final or not self.front:
            return None
        values, draws = self.values(self.counted), self._draws(self.noise, self.counted, count=1000)
        return hypervolume_interval(values[:, 0], draws, values[:, 1:], self.reference, self.directions)

    def to_dict(self) -> dict[str, Any]:
        """The saved form: manifest and trials are the truth; the rest is derived, for other programs."""
        # The saved form is that of a report.
        from se_nas.report.saved import saved_form

        with without_collections():
            return saved_form(self)
