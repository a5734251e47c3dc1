"""``SearchSpace``: the rules of a space applied to the sites of a backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from se_nas.architecture import Architecture, freeze_kwargs
from se_nas.arguments import checked
from se_nas.errors import ConfigError, nearest
from se_nas.notebook import paragraph, table
from se_nas.sites import Site, width_at
from se_nas.space._build import build_factors, fixed_widths, in_scope
from se_nas.space._encoding import Points
from se_nas.space._factor import WIDTH, Scalar
from se_nas.space._shipped import shipped_folder, shipped_names
from se_nas.space._spec import PAPER_POSITIONS, POSITIONS, SpaceSpec

SCHEMA = 1


class Trial(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


class SearchSpace(Points):
    """Architectures of one backbone that a search may visit.

    A width row has a column for every site in ``sites``; at a site that a point's position does not use, it
    holds the width that timm gives the site.

    Attributes:
        name: of the space, for people.
        spec: the rules.
        backbone: a timm model name.
        timm_kwargs: keywords of ``timm.create_model`` that change the network.
        sites_by_position: for each position its sites in order of execution.
        sites: every site that an architecture of the space can gate: with one position, the position's sites.
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
        self.spec, self.backbone, self.timm_kwargs = spec, backbone, dict(timm_kwargs or {})
        self.sites_by_position = {position: tuple(sites) for position, sites in sites_by_position.items()}
        self._lay_out_columns()
        stages = sorted({site.stage for site in self.sites})
        scope = in_scope(spec, self.sites, stages)
        factors = {
            position: build_factors(
                spec, sites, columns.tolist(), [scope[column] for column in columns], stages
            )
            for (position, sites), columns in zip(
                self.sites_by_position.items(), self._columns.values(), strict=True
            )
        }
        super().__init__(name, np.array(fixed_widths(spec, self.sites, scope), dtype=WIDTH), factors)

    @classmethod
    @checked
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
        from se_nas.space._file import read_spec

        path = _locate(name_or_path)
        spec = read_spec(path)
        # Backbones bring torch and timm; a wrong space is reported without waiting for them.
        import se_nas.backbones as backbones

        wanted = position if position is not None else spec.position
        names = _positions(backbone, wanted, timm_kwargs)
        sites = {name: backbones.find_sites(backbone, position=name, **timm_kwargs) for name in names}
        return cls(spec, sites, name=path.stem, backbone=backbone, timm_kwargs=timm_kwargs)

    @classmethod
    @checked
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

    @property
    def position(self) -> str | None:
        """The position of inserted blocks; None if a parameter chooses it."""
        return next(iter(self.sites_by_position)) if len(self.sites_by_position) == 1 else None

    def columns(self, position: str | None = None) -> NDArray[np.int64]:
        """Columns of a width row that belong to the sites of a position, in their order."""
        return self._columns[position or next(iter(self._columns))]

    def site_widths(self, position: str | None = None) -> tuple[frozenset[int], ...]:
        """For every site of a position, in their order, the widths that architectures of the space have there."""
        position = position or next(iter(self._factors))
        found = [{int(width)} for width in self._base]
        for factor in self._factors[position]:
            for index, column in enumerate(factor.columns):
                off = {int(factor.off[index])} if factor.owner[index] >= 0 else set()
                found[column] = off | set(factor.on[:, index].tolist())
        return tuple(frozenset(found[column]) for column in self._columns[position])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture, uniform over distinct ones.

        Uniform over points would favour networks that many points build: those with few blocks, for which γ
        hardly matters, and widths to which several γ round.
        """
        return self.at(self.sample_indices(rng, 1)[0])

    def enumerate(self) -> Iterator[Architecture]:
        """Every distinct architecture once, lazily."""
        return map(self.at, self.enumerate_indices())

    def rows_by_position(self, indices: NDArray[np.int16]) -> list[tuple[str, NDArray[np.intp]]]:
        """Each position that index rows (n, n_params) use, with the numbers of the rows that have it."""
        if len(self._factors) == 1:
            return [(next(iter(self._factors)), np.arange(len(indices)))]
        # With several positions the first parameter chooses one.
        found = [(name, np.flatnonzero(indices[:, 0] == number)) for number, name in enumerate(self._factors)]
        return [(name, rows) for name, rows in found if len(rows)]

    def at(self, indices: NDArray[np.int16]) -> Architecture:
        """The architecture of an index row, shape (n_params,)."""
        position, _ = self.rows_by_position(indices[None])[0]
        widths = self.widths(indices[None])[0, self._columns[position]]
        return self.build(position, widths.tolist())

    @checked
    def build(self, position: str | None, widths: Sequence[int]) -> Architecture:
        """The architecture with these hidden widths, in the space or not, with the block of the space's rules.

        Args:
            position: one of ``sites_by_position``; None for the first.
            widths: one for each site of the position, in order of execution.
        """
        position = position or next(iter(self.sites_by_position))
        return Architecture(
            backbone=self.backbone,
            timm_kwargs=freeze_kwargs(self.timm_kwargs),
            position=position,
            sites=self.sites_by_position[position],
            widths=tuple(widths),
            gate=self.spec.gate,
            act=self.spec.act,
            bias=self.spec.bias,
        )

    @checked
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
    @checked
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Inverse of ``to_dict``.

        Raises:
            ConfigError: a field is missing, a rule is broken, or the schema is newer than this program's.
        """
        from se_nas.documents.typed import check_schema, parse
        from se_nas.space._file import parse_spec

        check_schema(data, SCHEMA, "the search space", ConfigError)
        try:
            found = parse(_Saved, data)
        except ValueError as error:
            raise ConfigError(f"this is not a search space: {error}.") from error
        return cls(
            parse_spec(found.spec, source=f"search space {found.name!r}"),
            found.sites,
            name=found.name,
            backbone=found.backbone,
            timm_kwargs=found.timm_kwargs,
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

    def _repr_html_(self) -> str:
        rows = [
            {"parameter": name, "choices": ", ".join(map(str, choices))}
            for name, choices in self.choices.items()
        ]
        text = f"{self.name}: {self.size:,} architectures of {self.backbone}"
        return paragraph(text, strong=True) + table(_shortened(rows))


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """What ``SearchSpace.to_dict`` gives."""

    name: str
    backbone: str
    timm_kwargs: Mapping[str, Any]
    spec: Mapping[str, Any]
    sites: Mapping[str, tuple[Site, ...]]


def _shortened(rows: list[dict[str, str]], most: int = 24) -> list[dict[str, str]]:
    """The first rows, and how many more there are."""
    if len(rows) <= most:
        return rows
    return [*rows[:most], {"parameter": "…", "choices": f"and {len(rows) - most} more parameters"}]


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
    import se_nas.backbones as backbones

    if wanted == "usual":
        return [backbones.usual_position(backbone, **timm_kwargs)]
    if wanted == "all":
        there = backbones.positions(backbone, **timm_kwargs)
        return [name for name in PAPER_POSITIONS if name in there]
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names or [""]:
        if name not in POSITIONS:
            raise ConfigError(
                f"position is {name!r}.{nearest(name, POSITIONS)} Allowed: usual, all,"
                f" {', '.join(POSITIONS)}."
            )
    return names
