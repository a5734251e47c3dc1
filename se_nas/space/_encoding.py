"""Points of a space: index rows in, width rows out, without names of backbones or objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from se_nas.errors import ConfigError, nearest
from se_nas.space._factor import INDEX, Factor, Scalar


class Points:
    """The parameters of a space and the widths that they give.

    A **point** is one choice for every parameter; its index row holds the positions of the choices, shape
    (n_params,). Several points can build one network: then their width rows are equal, and exactly then.

    Attributes:
        choices: parameter name → its choices, JSON scalars; the same for every trial of a study.
    """

    def __init__(self, name: str, base: NDArray[np.int32], factors: Mapping[str, list[Factor]]) -> None:
        """``base``: widths that no parameter decides; ``factors``: those of each position."""
        self.name = name
        self._base = base
        self._factors = dict(factors)
        self.choices = self._collect_choices()

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
        """The canonical point of the network without inserted blocks, if there are several positions."""
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
                # The network without inserted blocks belongs to the first position.
                rows = rows[(self.widths(result[rows]) == self._base).all(axis=1)] if number else rows[:0]
        return result

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
                others = [other for other in params if other not in self.choices]
                raise ConfigError(
                    f"parameter {name!r} of space {self.name!r} is missing.{nearest(name, others)}"
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


def _lazy_product(factors: Sequence[Factor]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """As itertools.product, which would first hold every point of every factor."""
    if not factors:
        yield ()
        return
    for first in factors[0].enumerate():
        for rest in _lazy_product(factors[1:]):
            yield (first, *rest)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts a stage's reduction before its blocks and block10 after block9."""
    stems = [part.rstrip("0123456789") for part in name.split(".")]
    return [
        (stem == "block", int(part[len(stem) :] or -1), stem)
        for part, stem in zip(name.split("."), stems, strict=True)
    ]


def _kind(value: Any) -> str:
    return "bool" if isinstance(value, bool | np.bool_) else "str" if isinstance(value, str) else "number"
