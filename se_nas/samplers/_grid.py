"""The grid of a study's parameters: choices as indices, known objectives, neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from se_nas.errors import ConfigError
from se_nas.samplers._interval import LEVELS, Interval
from se_nas.samplers._kernel import Line

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Params = dict[str, Any]
AROUND = 64
"""Points around each of some that `Grid.around` gives; a power of two, as Sobol' sequences need."""
_SLIDES = np.concatenate([-(2 ** np.arange(17)), 2 ** np.arange(17)])


class Grid:
    """All points of a space; known objectives are evaluated once per point.

    Args:
        choices: parameter name → its values; an `Interval` for a continuous one.
        known: number of an objective → function of a params dict. If it has a method ``batch``, which takes a
            list of params dicts and returns as many numbers, that is called instead.
        feasible: tells from a params dict whether the point may be proposed; ``batch`` as above.
        priors: cheap estimates of the first modelled objective; ``batch`` as above.
        key: what identifies a point, from its params dict; ``batch`` as above. None: the params do.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        *,
        known: Mapping[int, Callable[..., Any]],
        feasible: Callable[..., Any] | None = None,
        priors: Sequence[Callable[..., Any]] = (),
        key: Callable[[Params], Hashable] | None = None,
    ) -> None:
        self.names = list(choices)
        self.choices = [
            values if isinstance(values, Interval) else tuple(values) for values in choices.values()
        ]
        self.continuous = [i for i, values in enumerate(self.choices) if isinstance(values, Interval)]
        self.sizes = np.array([len(values) for values in self.choices], dtype=np.int64)
        self.total = math.prod(len(values) for values in self.choices)
        self.known_columns = sorted(known)
        self._functions: list[Callable[..., Any]] = [known[column] for column in self.known_columns]
        self.num_priors = len(priors)
        self._functions += priors
        self._feasible, self._key = feasible, key
        # 1 and True, or 1 and 1.0, are equal as dictionary keys but may be different choices.
        self._numbers = [
            {} if isinstance(values, Interval) else {(type(v), v): i for i, v in enumerate(values)}
            for values in self.choices
        ]
        self._costs: dict[int, tuple[float, ...]] = {}
        self._allowed: dict[int, bool] = {}
        self._keys: dict[int, Hashable] = {}
        if self.total < 2**62:
            strides = np.append(np.cumprod(self.sizes[:0:-1])[::-1], 1)
        else:
            strides = np.random.default_rng(0).integers(1, 2**62, size=len(self.sizes))
        self._weights = strides.astype(np.int64)
        # Every single move of a parameter with choices: which parameter, and to which choice.
        listed = [i for i in range(len(self.sizes)) if i not in self.continuous]
        self._moves = (
            np.repeat(listed, self.sizes[listed]).astype(np.int64),
            np.concatenate([np.zeros(0, dtype=np.int64), *[np.arange(self.sizes[i]) for i in listed]]),
        )

    def params(self, rows: Index) -> list[Params]:
        columns = [
            [values[i] for i in column] for values, column in zip(self.choices, rows.T.tolist(), strict=True)
        ]
        return [dict(zip(self.names, picked, strict=True)) for picked in zip(*columns, strict=True)]

    def row(self, params: Mapping[str, Any]) -> Index | None:
        """Indices of the choices of ``params``; None if a parameter is missing or has another value."""
        numbers = self.choices_in(params)
        return np.array(list(numbers.values())) if len(numbers) == len(self.names) else None

    def part(self, params: Mapping[str, Any]) -> Index | None:
        """As `row`, but with -1 for parameters that are missing; None if there is none of the space."""
        numbers = self.choices_in(params)
        if not numbers or any(name in params and i not in numbers for i, name in enumerate(self.names)):
            return None
        return np.array([numbers.get(i, -1) for i in range(len(self.names))])

    def choices_in(self, params: Mapping[str, Any]) -> dict[int, int]:
        """Index of the parameter → index of its choice, for those of ``params`` that are in the space."""
        out = {}
        for i, (name, numbers) in enumerate(zip(self.names, self._numbers, strict=True)):
            choices = self.choices[i]
            if name in params and isinstance(choices, Interval):
                level = choices.nearest(float(params[name])) if _is_number(params[name]) else None
                if level is not None:
                    out[i] = level
            elif name in params:
                value = params[name]
                if isinstance(value, float) and (type(value), value) not in numbers:
                    value = round(value, 12)
                if (type(value), value) in numbers:
                    out[i] = numbers[type(value), value]
        return out

    def keys(self, rows: Index) -> list[Hashable]:
        """What identifies each point; the user's function is called once per point."""
        numbers: list[int] = self.identify(rows).tolist()
        if self._key is None:
            return list(numbers)
        missing = {number: i for i, number in enumerate(numbers) if number not in self._keys}
        points = self.params(rows[list(missing.values())])
        found = _called(self._key, points, "key")
        for value, point in zip(found, points, strict=True):
            if not isinstance(value, Hashable):
                raise ConfigError(
                    f"key returned {value!r} for {point}; it must be hashable: a string, number or tuple."
                )
        self._keys.update(zip(missing, found, strict=True))
        return [self._keys[number] for number in numbers]

    def everything(self) -> Index:
        """(total, n_params): every point."""
        return np.stack(np.unravel_index(np.arange(self.total), tuple(self.sizes)), axis=1).astype(np.int64)

    def sample(self, count: int, rng: np.random.Generator) -> Index:
        """(count, n_params) points, uniform and independent."""
        return rng.integers(0, self.sizes, size=(count, len(self.sizes)))

    def identify(self, rows: Index) -> Index:
        """(n,) a number per point, equal for equal points; beyond 2^62 points, different ones may agree by chance."""
        return rows @ self._weights

    def distinct(self, rows: Index) -> Index:
        """The rows without repetitions, in an order that depends only on the set."""
        return rows[np.unique(self.identify(rows), return_index=True)[1]]

    def neighbours(self, rows: Index) -> Index:
        """All points that differ in at most one parameter from one of ``rows``, each once.

        A continuous parameter moves to its ends, and up and down by powers of two of a level.
        """
        moved = np.repeat(rows[:, None], len(self._moves[0]), axis=1)
        moved[:, np.arange(len(self._moves[0])), self._moves[0]] = self._moves[1]
        out = [moved.reshape(-1, rows.shape[1])]
        for column in self.continuous:
            slid = np.repeat(rows[:, None], len(_SLIDES), axis=1)
            slid[:, :, column] = np.clip(slid[:, :, column] + _SLIDES, 0, self.sizes[column] - 1)
            out.append(slid.reshape(-1, rows.shape[1]))
        return self.distinct(np.concatenate(out) if self.continuous else out[0])

    def around(self, rows: Index, rng: np.random.Generator) -> Index:
        """(n, n_params) quasi-random points around ``rows`` in their continuous parameters; none without such ones."""
        if not self.continuous:
            return rows[:0]
        # Takes 50 MB to import, and spaces of se-nas have no continuous parameters.
        from scipy.stats import qmc

        sobol = qmc.Sobol(len(self.continuous), rng=rng).random(AROUND)
        # As many far as near.
        widths = np.geomspace(0.01, 1.0, AROUND)[rng.permutation(AROUND)]
        steps = (sobol - 0.5) * (widths * 2 * LEVELS)[:, None]
        out = np.repeat(rows[:, None], AROUND, axis=1)
        out[:, :, self.continuous] += np.round(steps).astype(np.int64)
        return self.distinct(np.clip(out, 0, self.sizes - 1).reshape(-1, rows.shape[1]))

    def functions(self, rows: Index) -> Array:
        """(n, n_known + n_priors) values of the known objectives, in the directions of the study, and of estimates.

        Raises:
            ConfigError: a function returns NaN, infinity or something that is not a number.
        """
        if not self._functions:
            return np.zeros((len(rows), 0))
        keys = self.identify(rows).tolist()
        missing = {key: i for i, key in enumerate(keys) if key not in self._costs}
        if missing:
            points = self.params(rows[list(missing.values())])
            kinds = ["known"] * len(self.known_columns) + ["prior"] * self.num_priors
            columns = [self._call(f, points, kind) for f, kind in zip(self._functions, kinds, strict=True)]
            for key, values in zip(missing, zip(*columns, strict=True), strict=True):
                self._costs[key] = values
        return np.array([self._costs[key] for key in keys], dtype=float).reshape(len(rows), -1)

    def _call(self, function: Callable[..., Any], points: list[Params], kind: str) -> list[float]:
        name = f"{kind} function {_name(function)}"
        raw = _called(function, points, kind)
        for value, point in zip(raw, points, strict=True):
            try:
                ok = math.isfinite(value)
            except (TypeError, OverflowError):
                ok = False
            if not ok:
                raise ConfigError(f"the {name} returned {value!r} for {point}; a finite number is needed.")
        return [float(value) for value in raw]

    def allowed(self, rows: Index) -> NDArray[np.bool_]:
        """(n,) whether each point may be proposed."""
        if self._feasible is None:
            return np.ones(len(rows), dtype=bool)
        keys = self.identify(rows).tolist()
        missing = {key: i for i, key in enumerate(keys) if key not in self._allowed}
        points = self.params(rows[list(missing.values())])
        answers = _called(self._feasible, points, "feasible")
        self._allowed.update(zip(missing, (bool(a) for a in answers), strict=True))
        return np.array([self._allowed[key] for key in keys], dtype=bool)

    def extremes(self, sketch: Index) -> Index:
        """(2 * n_known, n_params) points with the least and the greatest value of each known objective.

        Coordinate search from the best points of ``sketch``; it is exact if costs add up over parameters and
        every point is allowed.
        """
        out = []
        for column in range(len(self.known_columns)):
            for sign in (1.0, -1.0):
                values = sign * self.functions(sketch)[:, column]
                row, value = sketch[int(values.argmin())], values.min()
                while True:
                    around = self.neighbours(row[None])
                    around = around[self.allowed(around)]
                    if not len(around):
                        break
                    values = sign * self.functions(around)[:, column]
                    if values.min() >= value:
                        break
                    row, value = around[int(values.argmin())], values.min()
                out.append(row)
        return np.array(out, dtype=np.int64).reshape(-1, len(self.sizes))

    def positions(
        self, sketch: Index, levels: Index | None = None, left_out: Sequence[int] = ()
    ) -> list[Array | Line]:
        """For every parameter, the positions of its choices on their order, in [0, 1]; NaN if they have none.

        A continuous parameter is a `Line`.

        The parameters ``left_out`` have one more choice, the last: that a point does not have them, as -1 in
        ``levels`` (n, n_params) says of the points ``sketch`` (n, n_params).

        Choices are ordered by what they add to a known cost, by least squares over ``sketch``. That puts "no SE"
        next to the narrowest SE, whatever the choices are called and however expensive other parameters are.
        Without such a cost, numbers are ordered by value. Equal choices share a position.
        """
        costs = self.functions(sketch)[:, : len(self.known_columns)]
        levels = sketch if levels is None else np.where(levels < 0, self.sizes, levels)
        choices: list[tuple[Any, ...]] = [
            () if isinstance(values, Interval) else (*values, None) if i in left_out else values
            for i, values in enumerate(self.choices)
        ]
        listed = [i for i in range(len(choices)) if i not in self.continuous]
        offsets = np.cumsum([0, *map(len, choices)])
        onehot = np.zeros((len(sketch), offsets[-1]))
        onehot[np.arange(len(sketch))[:, None], offsets[:-1][listed] + levels[:, listed]] = 1.0
        counts = onehot.sum(axis=0)
        if self.continuous:
            # Parabolas stand for what continuous parameters add.
            place = sketch[:, self.continuous] / (LEVELS - 1)
            onehot = np.concatenate([onehot, place, place**2], axis=1)
        effects = np.linalg.pinv(onehot.T @ onehot, rcond=1e-10, hermitian=True) @ (onehot.T @ costs)
        # The part of a cost that the sum of effects leaves unexplained makes them uncertain by about this much.
        error = np.sqrt(
            ((costs - onehot @ effects) ** 2).mean(axis=0) / max(1.0, counts.min(initial=len(sketch)))
        )
        error += 1e-9 * costs.std(axis=0)
        out: list[Array | Line] = []
        for d, values in enumerate(choices):
            if d in self.continuous:
                out.append(Line(LEVELS, absent=d in left_out))
                continue
            place = np.array([v if _is_number(v) else np.nan for v in values], dtype=float)
            own, alike = slice(offsets[d], offsets[d + 1]), 0.0
            for column in range(costs.shape[1]):
                if counts[own].all() and np.ptp(effects[own, column]) > 5 * error[column]:
                    place, alike = effects[own, column], float(error[column])
                    break
            order = np.argsort(place)[: np.isfinite(place).sum()]
            rank = np.cumsum(np.diff(place[order], prepend=place[order[:1]]) > alike)
            ranked = np.full(len(place), np.nan)
            ranked[order] = rank / max(1, rank.max(initial=0))
            out.append(ranked)
        return out


def _called(function: Callable[..., Any], points: list[Params], kind: str) -> list[Any]:
    """What a user's function returns for each point, through its method ``batch`` if it has one.

    Raises:
        ConfigError: it asks for a parameter that is not in the space, or returns too few values.
    """
    batch = getattr(function, "batch", None)
    try:
        if batch is None or not points:
            return [function(point) for point in points]
        found = list(batch(points))
    except KeyError as error:
        name = error.args[0] if error.args else None
        if not isinstance(name, str) or name in points[0]:
            raise
        raise ConfigError(
            f"the {kind} function {_name(function)} needs the parameter {name!r}, which is not in the space"
            f" ({', '.join(points[0])}): list it in space=, or read it with params.get."
        ) from error
    if len(found) != len(points):
        raise ConfigError(f"{_name(function)}.batch returned {len(found)} values for {len(points)} points.")
    return found


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
