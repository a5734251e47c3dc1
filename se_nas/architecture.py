"""Architectures: where SE goes in a backbone, with which hidden width.

An architecture is identified by what it builds: realised hidden widths, never reduction ratios. Two ratios
that round to the same width are one architecture, and so are settings that no block uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from se_nas.arguments import checked
from se_nas.errors import ConfigError, not_allowed
from se_nas.notebook import paragraph, table
from se_nas.sites import (
    ABSENT,
    ACTIVATIONS,
    GATES,
    KEEP,
    Site,
    check_reductions,
    check_width,
    native_width,
    width_at,
)

SCHEMA = 1


@checked
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Architecture:
    """A backbone with SE absent or present, with a hidden width, at every site. Equal when ``key`` is equal.

    Attributes:
        backbone: a timm model name.
        timm_kwargs: keywords of ``timm.create_model`` that change the network, sorted by name.
        position: where SE is inserted; the family's usual position is resolved before it gets here.
        sites: every site, in order of execution.
        widths: for every site the hidden width, ``ABSENT`` (0) or ``KEEP`` (-1, gates without a bottleneck).
        gate: gate of inserted blocks. Native blocks keep their own gate and inner activation.
        act: inner activation of inserted blocks; None is the family's own (``Site.act``).
        bias: whether the layers of inserted blocks have biases.
    """

    backbone: str
    timm_kwargs: tuple[tuple[str, Any], ...] = ()
    position: str
    sites: tuple[Site, ...]
    widths: tuple[int, ...]
    gate: str = "sigmoid"
    act: str | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.sites):
            raise ConfigError(
                f"{self.backbone} has {len(self.sites)} sites at position {self.position!r},"
                f" but {len(self.widths)} widths were given: one for every site in order of execution"
                " (0 for none), or with from_widths a mapping from the paths of those that change."
            )
        if self.gate not in GATES:
            raise ConfigError(not_allowed("gate", self.gate, GATES))
        if self.act is not None and self.act not in ACTIVATIONS:
            raise ConfigError(not_allowed("act", self.act, ACTIVATIONS, "None"))
        paths = [site.path for site in self.sites]
        if len(set(paths)) != len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            raise ConfigError(f"site {twice!r} is named twice; give every path once, with one width.")
        for site, width in zip(self.sites, self.widths, strict=True):
            check_width(site, width)

    @classmethod
    @checked
    def plain(cls, backbone: str, *, position: str | None = None, **timm_kwargs: Any) -> Architecture:
        """The backbone as timm makes it, native gates included."""
        sites, position = _sites_of(backbone, position, timm_kwargs)
        widths = tuple(native_width(site) for site in sites)
        return cls(
            backbone=backbone,
            timm_kwargs=freeze_kwargs(timm_kwargs),
            position=position,
            sites=sites,
            widths=widths,
        )

    @classmethod
    @checked
    def uniform(
        cls,
        backbone: str,
        *,
        reduction: float | Mapping[int, float | None],
        position: str | None = None,
        bias: bool = True,
        rounding: str = "timm",
        gate: str = "sigmoid",
        native: str = "keep",
        act: str | None = None,
        **timm_kwargs: Any,
    ) -> Architecture:
        """SE at every site with one reduction ratio γ, or with one for each stage.

        Args:
            backbone: a timm model name.
            reduction: γ, above 0; or a mapping from stage to γ, in which a stage that is absent or None has none.
            position: one of the family's positions; None is its usual one.
            rounding: "timm" (the family's own) or "exact" (C // γ).
            native: what happens to gates that timm builds: "keep", "resize" (set to γ) or "remove".
            act: inner activation of inserted blocks; None is the family's own.
            timm_kwargs: further keywords of ``timm.create_model`` that change the network.

        Raises:
            ConfigError: γ is not above 0, or is larger than the channels allow.
            BackboneError: the backbone is unknown, has no site, or lacks the position.
        """
        sites, position = _sites_of(backbone, position, timm_kwargs)
        ratios = reduction if isinstance(reduction, Mapping) else {site.stage: reduction for site in sites}
        check_reductions(sites, ratios)
        widths = tuple(width_at(site, ratios.get(site.stage), rounding, native) for site in sites)
        return cls(
            backbone=backbone,
            timm_kwargs=freeze_kwargs(timm_kwargs),
            position=position,
            sites=sites,
            widths=widths,
            gate=gate,
            act=act,
            bias=bias,
        )

    @classmethod
    @checked
    def from_widths(
        cls,
        backbone: str,
        *,
        widths: Sequence[int] | Mapping[str, int],
        position: str | None = None,
        bias: bool = True,
        gate: str = "sigmoid",
        act: str | None = None,
        **timm_kwargs: Any,
    ) -> Architecture:
        """Hidden widths site by site: one for every site in order, or a mapping from path to width.

        Sites that a mapping does not name stay as timm makes them.
        """
        sites, position = _sites_of(backbone, position, timm_kwargs)
        if isinstance(widths, Mapping):
            known = {site.path for site in sites}
            unknown = [path for path in widths if path not in known]
            if unknown:
                raise ConfigError(
                    f"{unknown[0]!r} is not a site of {backbone} at position {position!r};"
                    f" sites: {', '.join(site.path for site in sites)}."
                )
            widths = [widths.get(site.path, native_width(site)) for site in sites]
        return cls(
            backbone=backbone,
            timm_kwargs=freeze_kwargs(timm_kwargs),
            position=position,
            sites=sites,
            widths=tuple(widths),
            gate=gate,
            act=act,
            bias=bias,
        )

    @cached_property
    def key(self) -> str:
        """16 hex digits that are equal for equal networks and differ otherwise (SHA-256 of the canonical form).

        Only what departs from the plain backbone enters it, so settings that no block uses do not.
        """
        return hashlib.sha256(json.dumps(self._canonical(), sort_keys=True).encode()).hexdigest()[:16]

    def _canonical(self) -> dict[str, Any]:
        native = {site.path: width for site, width in self.changed() if site.native}
        inserted = {
            site.path: [width, self.act or site.act] for site, width in self.changed() if not site.native
        }
        form: dict[str, Any] = {"backbone": self.backbone, "timm": list(self.timm_kwargs), "native": native}
        if inserted:
            form |= {"position": self.position, "se": inserted, "gate": self.gate, "bias": self.bias}
        return form

    def changed(self) -> Iterator[tuple[Site, int]]:
        """Sites that are not as timm makes them, with their widths."""
        for site, width in zip(self.sites, self.widths, strict=True):
            if width != native_width(site):
                yield site, width

    @property
    def is_plain(self) -> bool:
        """Whether this is the backbone as timm makes it."""
        return next(self.changed(), None) is None

    @property
    def num_gated(self) -> int:
        """Number of sites with a gate, native or inserted."""
        return sum(width != ABSENT for width in self.widths)

    def by_stage(self) -> dict[int, list[tuple[Site, int]]]:
        """Sites and widths grouped by stage, in order of execution."""
        stages: dict[int, list[tuple[Site, int]]] = {}
        for site, width in zip(self.sites, self.widths, strict=True):
            stages.setdefault(site.stage, []).append((site, width))
        return dict(sorted(stages.items()))

    def describe(self) -> str:
        """A line for people: gated sites out of all, and the realised γ, for each stage that has a gate.

        The realised γ is ``reduction_base / width``, a range if the blocks of a stage differ.
        """
        if self.num_gated == 0:
            return "no SE"
        words = []
        for stage, members in self.by_stage().items():
            gated = [(site, width) for site, width in members if width != ABSENT]
            if not gated:
                continue
            ratios = sorted({round(site.reduction_base / width, 1) for site, width in gated if width > 0})
            if not ratios:
                ratio = "no bottleneck"
            elif len(ratios) == 1:
                ratio = f"γ={ratios[0]:g}"
            else:
                ratio = f"γ={ratios[0]:g}–{ratios[-1]:g}"
            words.append(f"stage {stage}: {len(gated)}/{len(members)} {ratio}")
        return "; ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` gives an equal architecture back, without torch or timm."""
        return {
            "schema": SCHEMA,
            "backbone": self.backbone,
            "timm_kwargs": dict(self.timm_kwargs),
            "position": self.position,
            "gate": self.gate,
            "act": self.act,
            "bias": self.bias,
            "sites": [asdict(site) for site in self.sites],
            "widths": list(self.widths),
        }

    @classmethod
    @checked
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Inverse of ``to_dict``.

        Raises:
            ConfigError: a field is missing or unknown, or the schema is newer than this program's.
        """
        from se_nas.documents.typed import check_schema, parse

        check_schema(data, SCHEMA, "the architecture", ConfigError)
        names = {field.name for field in fields(cls)}
        missing = names - data.keys()
        # An architecture.json that was parsed by hand has its digest too.
        unknown = data.keys() - names - {"schema", "sha256"}
        if missing or unknown:
            wrong = (
                f"lacks {', '.join(sorted(missing))}" if missing else f"has unknown {sorted(unknown)[0]!r}"
            )
            raise ConfigError(f"this is not an architecture: it {wrong}.")
        known = {name: data[name] for name in names}
        try:
            return parse(cls, {**known, "timm_kwargs": freeze_kwargs(data["timm_kwargs"])})
        except ValueError as error:
            raise ConfigError(f"this is not an architecture: {error}.") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return f"{self.backbone} [{self.key}] {self.describe()}"

    def __repr__(self) -> str:
        return f"Architecture({self.backbone!r}, key={self.key!r}, {self.describe()!r})"

    def _repr_html_(self) -> str:
        rows = [
            {
                "stage": str(stage),
                "channels": "–".join(str(size) for size in sorted({site.channels for site, _ in members})),
                "hidden width at each site": " ".join(_shown(width) for _, width in members),
            }
            for stage, members in self.by_stage().items()
        ]
        return paragraph(str(self), strong=True) + table(rows)


def freeze_kwargs(timm_kwargs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Keywords of ``timm.create_model`` as ``Architecture`` holds them: plain JSON values, hashable, sorted."""
    try:
        canonical = json.loads(json.dumps(dict(timm_kwargs), sort_keys=True))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"keywords of timm.create_model must be plain JSON values, so that the architecture can be saved: {error}"
        ) from error
    return tuple((name, _hashable(value)) for name, value in canonical.items())


def _shown(width: int) -> str:
    return "–" if width == ABSENT else "kept" if width == KEEP else str(width)


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value


def _sites_of(
    backbone: str, position: str | None, timm_kwargs: Mapping[str, Any]
) -> tuple[tuple[Site, ...], str]:
    from se_nas.backbones import find_sites, usual_position

    position = position or usual_position(backbone, **timm_kwargs)
    return tuple(find_sites(backbone, position=position, **timm_kwargs)), position
