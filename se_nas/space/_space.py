"""``SearchSpace``: the rules of a space applied to the sites of a backbone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from se_nas.architecture import Architecture, Site, freeze_kwargs, site_from_dict, width_at
from se_nas.errors import ConfigError, nearest
from se_nas.space._build import build_factors, fixed_widths, in_scope
from se_nas.space._factor import INDEX, WIDTH, Factor, Scalar
from se_nas.space._shipped import shipped_folder, shipped_names
from se_nas.space._spec import PAPER_POSITIONS, POSITIONS, SpaceSpec

SCHEMA = 1


class Trial(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


class SearchSpace:
    """Architectures of one backbone that a search may visit.

    A **point** is one choice for every parameter; its index row holds the positions of the choices, shape
    (n_params,). Several points can build one network: then their width rows are equal, and exactly then.
    A width row has a column for every site in ``sites``; at a site that a point's position does not use, it
    holds the width that timm gives the site.

    Attributes:
        name: of the space, for people.
        spec: the rules.
        backbone: a timm model name.
        timm_kwargs: keywords of ``timm.create_model`` that change the network.
        sites_by_position: for each position its sites in order of execution.
        sites: every site that an architecture of the space can gate: with one position, the position's sites.
        choices: parameter name → its choices, JSON scalars; the same for every trial of a study.
    """

    def __init__(
        self,
        spec: SpaceSpec,
        sites_by_position: Mapping[str, Sequence[Site]],
        *,
        name: str,
        backbone: str,
        timm_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not sites_by_position or not all(sites_by_position.values()):
            empty = next((position for position, sites in sites_by_position.items() if not sites), None)
            raise ConfigError(f"{backbone} has no site" + (f" at position {empty!r}." if empty else "."))
        native = any(site.native for sites in sites_by_position.values() for site in sites)
        if len(sites_by_position) > 1 and native and spec.native in ("resize", "free"):
            raise ConfigError(
                f"native is {spec.native!r} with the positions {', '.join(sites_by_position)};"
                " allowed with several positions: keep, remove."
            )
        self.name, self.spec, self.backbone = name, spec, backbone
        self.timm_kwargs = dict(timm_kwargs or {})
        self.sites_by_position = {position: tuple(sites) for position, sites in sites_by_position.items()}
        self._lay_out_columns()
        self._factors = self._build_factors()
        self.choices = self._collect_choices()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        backbone: str,
        position: str | Sequence[str] | None = None,
        **timm_kwargs: Any,
    ) -> SearchSpace:
        """A shipped space by its name, or a search-space file by its path, for a timm backbone.

        Args:
            name_or_path: one of ``shipped_spaces()``, or a YAML file.
            backbone: a timm model name.
            position: overrides the file's position: "usual", "all", a name or several.
            timm_kwargs: keywords of ``timm.create_model`` that change the network.

        Raises:
            ConfigError: the space is unknown, or its file breaks a rule.
            BackboneError: the backbone is unknown, has no site, or lacks the position.
        """
        from se_nas.backbones import find_sites
        from se_nas.space._file import read_spec

        path = _locate(name_or_path)
        spec = read_spec(path)
        wanted = position if position is not None else spec.position
        names = _positions(backbone, wanted, timm_kwargs)
        sites = {name: find_sites(backbone, position=name, **timm_kwargs) for name in names}
        return cls(spec, sites, name=path.stem, backbone=backbone, timm_kwargs=timm_kwargs)

    @classmethod
    def from_sites(
        cls,
        spec: SpaceSpec | Mapping[str, Any],
        sites: Sequence[Site] | Mapping[str, Sequence[Site]],
        *,
        name: str = "custom",
        backbone: str,
        **timm_kwargs: Any,
    ) -> SearchSpace:
        """A space from rules (a mapping as a file would hold it) and sites that are known already.

        ``sites``: those of one position in order of execution, or position → sites.
        """
        if not isinstance(spec, SpaceSpec):
            from se_nas.space._file import parse_spec

            spec = parse_spec(spec)
        if not isinstance(sites, Mapping):
            here = next((site.position for site in sites if site.native is None), None)
            sites = {here or (sites[0].position if sites else "standard"): sites}
        return cls(spec, sites, name=name, backbone=backbone, timm_kwargs=timm_kwargs)

    def _lay_out_columns(self) -> None:
        column: dict[tuple[str, str | None], int] = {}
        columns: list[Site] = []
        self._columns: dict[str, NDArray[np.int64]] = {}
        for position, sites in self.sites_by_position.items():
            # A native gate is the same gate whatever the position of inserted blocks.
            keys = [(site.path, None if site.native else position) for site in sites]
            for site, key in zip(sites, keys, strict=True):
                if key not in column:
                    column[key] = len(columns)
                    columns.append(site)
            self._columns[position] = np.array([column[key] for key in keys], dtype=np.int64)
        self.sites = tuple(columns)
        self._column_of = column

    def _build_factors(self) -> dict[str, list[Factor]]:
        stages = sorted({site.stage for site in self.sites})
        scope = in_scope(self.spec, self.sites, stages)
        self._base = np.array(fixed_widths(self.spec, self.sites, scope), dtype=WIDTH)
        return {
            position: build_factors(
                self.spec, sites, columns.tolist(), [scope[column] for column in columns], stages
            )
            for (position, sites), columns in zip(
                self.sites_by_position.items(), self._columns.values(), strict=True
            )
        }

    def _collect_choices(self) -> dict[str, tuple[Scalar, ...]]:
        choices: dict[str, tuple[Scalar, ...]] = {}
        if len(self._factors) > 1:
            choices["position"] = tuple(self._factors)
        everywhere = {
            name: values
            for factors in self._factors.values()
            for factor in factors
            for name, values in factor.choices.items()
        }
        choices |= dict(sorted(everywhere.items(), key=lambda item: _natural(item[0])))
        column = {name: i for i, name in enumerate(choices)}
        self._parameters = {
            position: [[column[name] for name in factor.choices] for factor in factors]
            for position, factors in self._factors.items()
        }
        return choices

    @property
    def position(self) -> str | None:
        """The position of inserted blocks; None where a parameter chooses it."""
        return next(iter(self.sites_by_position)) if len(self.sites_by_position) == 1 else None

    @cached_property
    def num_points(self) -> int:
        """Number of parameter combinations, those that build the same network counted apart."""
        return math.prod(len(values) for values in self.choices.values())

    @cached_property
    def _sizes(self) -> list[int]:
        return [math.prod(factor.size for factor in factors) for factors in self._factors.values()]

    @cached_property
    def size(self) -> int:
        """Number of distinct architectures (by key), exact at any depth."""
        # With several positions native gates are fixed, so positions share the network without SE alone.
        return sum(self._sizes) - (len(self._sizes) - 1)

    def widths(self, indices: NDArray[np.int16]) -> NDArray[np.int32]:
        """Realised widths of many points, shape (n, len(sites)); equal rows build the same network.

        Args:
            indices: index rows, shape (n, len(choices)).
        """
        widths = np.tile(self._base, (len(indices), 1))
        for rows, factors, parameters in self._parts(indices):
            for factor, columns in zip(factors, parameters, strict=True):
                widths[rows[:, None], factor.columns] = factor.widths(indices[rows[:, None], columns])
        return widths

    def canonical(self, indices: NDArray[np.int16]) -> NDArray[np.int16]:
        """One index row for all points that build the same network, shape as given."""
        result = np.zeros_like(indices)
        for number, (rows, factors, parameters) in enumerate(self._parts(indices)):
            for factor, columns in zip(factors, parameters, strict=True):
                result[rows[:, None], columns] = factor.canonical(indices[rows[:, None], columns])
            if number > 0:
                plain = (self.widths(indices[rows]) == self._base).all(axis=1)
                result[rows[~plain], 0] = number
                result[rows[plain]] = self._plain
        return result

    @cached_property
    def _plain(self) -> NDArray[np.int16]:
        """The canonical point of the network without inserted blocks, where there are several positions."""
        point = self.find(self._base)
        assert point is not None
        return point

    def _parts(
        self, indices: NDArray[np.int16]
    ) -> Iterator[tuple[NDArray[np.int64], list[Factor], list[list[int]]]]:
        """Rows of each position, with its factors and their parameters."""
        for number, position in enumerate(self._factors):
            several = len(self._factors) > 1
            rows = np.flatnonzero(indices[:, 0] == number) if several else np.arange(len(indices))
            yield rows, self._factors[position], self._parameters[position]

    def columns(self, position: str | None = None) -> NDArray[np.int64]:
        """Columns of a width row that belong to the sites of a position, in their order."""
        return self._columns[position or next(iter(self._columns))]

    def find(self, widths: NDArray[np.int32]) -> NDArray[np.int16] | None:
        """The canonical index row that gives a width row, shape (n_params,), or None if no point does."""
        for number, position in enumerate(self._factors):
            row = np.zeros(len(self.choices), dtype=INDEX)
            left = widths != self._base
            if len(self._factors) > 1:
                row[0] = number
            for factor, columns in zip(self._factors[position], self._parameters[position], strict=True):
                point = factor.find(widths[factor.columns])
                if point is None:
                    break
                row[columns] = point
                left[factor.columns] = False
            else:
                if not left.any():
                    return row
        return None

    def sample_indices(self, rng: np.random.Generator, count: int) -> NDArray[np.int16]:
        """``count`` canonical index rows, independent and uniform over distinct architectures."""
        numbers = np.zeros(count, dtype=np.int64)
        if len(self._sizes) > 1:
            weights = [size - (i > 0) for i, size in enumerate(self._sizes)]
            ends = np.cumsum([weight / sum(weights) for weight in weights])
            numbers = np.searchsorted(ends[:-1], rng.random(count), side="right")
        result = np.zeros((count, len(self.choices)), dtype=INDEX)
        for number, position in enumerate(self._factors):
            rows = np.flatnonzero(numbers == number)
            while len(rows):
                if len(self._sizes) > 1:
                    result[rows, 0] = number
                for factor, columns in zip(self._factors[position], self._parameters[position], strict=True):
                    result[rows[:, None], columns] = factor.sample(rng, len(rows))
                again = (
                    (self.widths(result[rows]) == self._base).all(axis=1)
                    if number
                    else np.zeros(len(rows), bool)
                )
                rows = rows[again]
        return result

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture, uniform over distinct ones.

        Uniform over points would favour networks that many points build: those with few blocks, for which γ
        hardly matters, and widths to which several γ round.
        """
        return self.at(self.sample_indices(rng, 1)[0])

    def enumerate_indices(self) -> Iterator[NDArray[np.int16]]:
        """The canonical index row of every distinct architecture, once, lazily."""
        for number, position in enumerate(self._factors):
            factors, parameters = self._factors[position], self._parameters[position]
            for points in _lazy_product(factors):
                row = np.zeros(len(self.choices), dtype=INDEX)
                if len(self._factors) > 1:
                    row[0] = number
                for point, columns in zip(points, parameters, strict=True):
                    row[columns] = point
                if number == 0 or not (self.widths(row[None])[0] == self._base).all():
                    yield row

    def enumerate(self) -> Iterator[Architecture]:
        """Every distinct architecture once, lazily."""
        return map(self.at, self.enumerate_indices())

    def table(self, max_size: int = 1_000_000) -> NDArray[np.int16]:
        """The canonical index row of every distinct architecture, shape (size, len(choices)).

        Raises:
            ConfigError: the space has more than ``max_size`` architectures.
        """
        if self.size > max_size:
            raise ConfigError(
                f"the space has {self.size} architectures; a table may have at most {max_size}."
            )
        parts = []
        for number, position in enumerate(self._factors):
            factors, parameters = self._factors[position], self._parameters[position]
            rows = np.zeros((self._sizes[number], len(self.choices)), dtype=INDEX)
            if len(self._factors) > 1:
                rows[:, 0] = number
            repeats = len(rows)
            for factor, columns in zip(factors, parameters, strict=True):
                repeats //= factor.size
                rows[:, columns] = np.resize(
                    np.repeat(factor.table(), repeats, axis=0), (len(rows), len(columns))
                )
            parts.append(rows[~(self.widths(rows) == self._base).all(axis=1)] if number else rows)
        return np.concatenate(parts)

    def encode(self, params: Mapping[str, Any]) -> NDArray[np.int16]:
        """Index row of a point. Further parameters in ``params`` (a study's own) are left alone.

        Raises:
            ConfigError: a parameter is missing, or its value is none of its choices.
        """
        row = np.empty(len(self.choices), dtype=INDEX)
        for i, (name, values) in enumerate(self.choices.items()):
            if name not in params:
                raise ConfigError(
                    f"parameter {name!r} of space {self.name!r} is missing.{nearest(name, params)}"
                )
            # 1 == True, but a switch is not a ratio.
            match = [
                j
                for j, value in enumerate(values)
                if value == params[name] and _kind(value) == _kind(params[name])
            ]
            if not match:
                raise ConfigError(
                    f"parameter {name!r} is {params[name]!r}; allowed: {', '.join(map(repr, values))}."
                )
            row[i] = match[0]
        return row

    def decode(self, indices: Sequence[int] | NDArray[np.int16]) -> dict[str, Scalar]:
        """Parameters of an index row."""
        pairs = zip(self.choices.items(), indices, strict=True)
        return {name: values[int(index)] for (name, values), index in pairs}

    def at(self, indices: NDArray[np.int16]) -> Architecture:
        """The architecture of an index row, shape (n_params,)."""
        several = len(self._factors) > 1
        position = list(self._factors)[int(indices[0]) if several else 0]
        widths = self.widths(indices[None])[0, self._columns[position]]
        return self._architecture(position, tuple(widths.tolist()))

    def _architecture(self, position: str, widths: tuple[int, ...]) -> Architecture:
        return Architecture(
            backbone=self.backbone,
            timm_kwargs=freeze_kwargs(self.timm_kwargs),
            position=position,
            sites=self.sites_by_position[position],
            widths=widths,
            gate=self.spec.gate,
            act=self.spec.act,
            bias=self.spec.bias,
        )

    def architecture(self, params: Mapping[str, Any]) -> Architecture:
        """The architecture of a point, given by parameter names and choices (``encode``'s errors)."""
        return self.at(self.encode(params))

    def suggest(self, trial: Trial) -> Architecture:
        """Asks an Optuna trial for every parameter and builds the architecture."""
        return self.architecture(
            {name: trial.suggest_categorical(name, values) for name, values in self.choices.items()}
        )

    def params(self, arch: Architecture) -> dict[str, Scalar] | None:
        """Parameters of the canonical point that builds ``arch``; None if the space does not hold it."""
        widths = np.array([width_at(site, None) for site in self.sites], dtype=WIDTH)
        for site, width in arch.changed():
            column = self._column_of.get((site.path, None if site.native else arch.position))
            if column is None:
                return None
            widths[column] = width
        row = self.find(widths)
        # Backbone, gate, activation and biases are in the key as well.
        return self.decode(row) if row is not None and self.at(row).key == arch.key else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` gives an equal space back, without timm."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "backbone": self.backbone,
            "timm_kwargs": self.timm_kwargs,
            "spec": self.spec.to_dict(),
            "sites": {
                position: [asdict(site) for site in sites]
                for position, sites in self.sites_by_position.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Inverse of ``to_dict``.

        Raises:
            ConfigError: a field is missing, a rule is broken, or the schema is newer than this program's.
        """
        from se_nas.space._file import parse_spec

        if data.get("schema", SCHEMA) > SCHEMA:
            raise ConfigError(
                f"the search space has schema {data['schema']}; this version of se-nas reads up to {SCHEMA}."
                " Upgrade se-nas."
            )
        missing = [name for name in ("name", "backbone", "timm_kwargs", "spec", "sites") if name not in data]
        if missing:
            raise ConfigError(f"this is no search space: it lacks {', '.join(missing)}.")
        return cls(
            parse_spec(data["spec"], source=f"search space {data['name']!r}"),
            {position: [site_from_dict(site) for site in sites] for position, sites in data["sites"].items()},
            name=data["name"],
            backbone=data["backbone"],
            timm_kwargs=data["timm_kwargs"],
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, equal for spaces with equal backbone, sites, rules and choices."""
        form = self.to_dict()
        form["spec"].pop("description")
        form |= {"name": None, "choices": list(self.choices.items())}
        return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, backbone={self.backbone!r}, size={self.size:,})"


def _locate(name_or_path: str | Path) -> Path:
    path, names = Path(name_or_path), shipped_names()
    if str(name_or_path) in names:
        return shipped_folder() / f"{name_or_path}.yaml"
    if path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1 or path.is_file():
        return path
    raise ConfigError(
        f"there is no search space {str(name_or_path)!r}.{nearest(str(name_or_path), names)}"
        f" Shipped: {', '.join(names)}; or give the path of a YAML file."
    )


def _positions(backbone: str, wanted: str | Sequence[str], timm_kwargs: Mapping[str, Any]) -> list[str]:
    from se_nas.backbones import positions, usual_position

    if wanted == "usual":
        return [usual_position(backbone, **timm_kwargs)]
    if wanted == "all":
        there = positions(backbone, **timm_kwargs)
        return [name for name in PAPER_POSITIONS if name in there]
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in POSITIONS:
            raise ConfigError(
                f"position is {name!r}.{nearest(name, POSITIONS)} Allowed: usual, all,"
                f" {', '.join(POSITIONS)}."
            )
    return names


def _lazy_product(factors: Sequence[Factor]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """As itertools.product, which would first hold every point of every factor."""
    if not factors:
        yield ()
        return
    for first in factors[0].enumerate():
        for rest in _lazy_product(factors[1:]):
            yield (first, *rest)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts a stage's reduction before its blocks and block10 after block9."""
    parts = []
    for part in name.split("."):
        stem = part.rstrip("0123456789")
        parts.append((stem.startswith("block"), int(part[len(stem) :] or -1), stem))
    return [(int(late), number, stem) for late, number, stem in parts]


def _kind(value: Any) -> str:
    return "bool" if isinstance(value, bool | np.bool_) else "str" if isinstance(value, str) else "number"
