"""The process of two outputs against a dense computation that knows nothing of how it separates them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas.samplers import _paired_gp, _paired_likelihood
from se_nas.samplers._gp import Surrogate
from se_nas.samplers._likelihood import BIAS, NOISE_FLOOR, Covariance, Points
from se_nas.samplers._paired_gp import PairedSurrogate, tells

POSITIONS = [np.array([0.0, 0.3, 0.6, 1.0]), np.array([np.nan, 0.0, 0.5, 1.0]), np.full(4, np.nan)]


def some_points(rng: np.random.Generator, count: int) -> Points:
    return Points(index=rng.integers(0, 4, size=(count, 3)), features=rng.standard_normal((count, 2)))


def some_readings(
    seed: int, count: int, missing: int, partial: int
) -> tuple[Points, np.ndarray, dict[str, Any]]:
    """Points with two correlated readings; in some the second is missing, in some the first is extrapolated too."""
    rng = np.random.default_rng(seed)
    points = some_points(rng, count)
    truth = points.index.sum(axis=1) + 0.3 * rng.standard_normal(count)
    values = np.stack([truth, -truth], axis=1) + rng.standard_normal((count, 2)) * [0.5, 0.2] + [70.0, 2.0]
    whole = count - missing - partial
    values[whole:, 1] = np.nan
    extra = np.zeros(count)
    extra[count - partial :] = rng.uniform(0.1, 0.5, partial)
    counts = np.ones(count)
    counts[: whole - 2] = rng.integers(1, 4, whole - 2)
    within = np.array([[0.5, -0.1], [-0.1, 0.2]]), 9
    return points, values, {"counts": counts, "extra": extra, "within": within}


class Dense:
    """Both outputs of every point in one covariance, (2 n)^2; then what was not read is left out."""

    def __init__(
        self, model: PairedSurrogate, values: np.ndarray, options: dict[str, Any], theta: np.ndarray
    ) -> None:
        *_, ratio, second, total, apart = theta
        first = theta[-5]
        a, b = (total + apart) / 2, (total - apart) / 2
        self.mixing = np.array([[np.cos(a), np.sin(b)], [np.sin(a), np.cos(b)]])
        self.scale = values[:, 0].std()
        standard = (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)
        self._read = ~np.isnan(values.T.ravel())
        self.y = standard.T.ravel()[self._read]
        own = Covariance(model._choices, theta[:-4])
        self._covariances = [own, lambda a, b: BIAS + np.exp(ratio) * (own(a, b) - BIAS)]
        noises = np.exp([first, second]) + NOISE_FLOOR
        noise = self.mixing @ np.diag(noises) @ self.mixing.T
        self.noise, self._points = noise, model.points
        errors = np.kron(noise, np.diag(1 / options["counts"]))
        errors[np.diag_indices(len(values))] += options["extra"] / self.scale**2
        whole = self._covariance(model.points, model.points, (0, 1), (0, 1)) + errors
        self.k = whole[np.ix_(self._read, self._read)]
        squares, self.dof = options["within"]
        self.within = squares / np.outer(np.nanstd(values, axis=0), np.nanstd(values, axis=0))

    def _covariance(
        self, a: Points, b: Points, rows: tuple[int, ...], columns: tuple[int, ...]
    ) -> np.ndarray:
        parts = [covariance(a, b) for covariance in self._covariances]
        return sum(
            np.kron(np.outer(self.mixing[list(rows), c], self.mixing[list(columns), c]), part)
            for c, part in enumerate(parts)
        )

    def minus_log_density(self) -> float:
        value = self.y @ np.linalg.solve(self.k, self.y) + np.linalg.slogdet(self.k)[1]
        value += self.dof * np.linalg.slogdet(self.noise)[1] + np.trace(
            np.linalg.solve(self.noise, self.within)
        )
        return 0.5 * float(value)

    def posterior(self, at: Points) -> tuple[np.ndarray, np.ndarray]:
        """Means and covariance of the objective, standardised."""
        cross = self._covariance(at, self._points, (0,), (0, 1))[:, self._read]
        prior = self._covariance(at, at, (0,), (0,))
        return cross @ np.linalg.solve(self.k, self.y), prior - cross @ np.linalg.solve(self.k, cross.T)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every function that is minimised, with the prior's centre and spread."""
    seen: list[Any] = []
    fitted = _paired_gp.fitted

    def spy(function: Any, centre: Any, spread: Any, **options: Any) -> Any:
        seen.append((function, centre, spread))
        return fitted(function, centre, spread, **options)

    monkeypatch.setattr(_paired_gp, "fitted", spy)
    return seen


@pytest.mark.parametrize(("missing", "partial"), [(0, 0), (4, 0), (0, 3), (5, 4)])
def test_the_fit_minimises_the_dense_density_and_its_gradient_is_exact(
    spied: list[Any], missing: int, partial: int
) -> None:
    points, values, options = some_readings(1, 22, missing, partial)
    model = PairedSurrogate(POSITIONS, points, values, **options)
    function, centre, spread = spied[0]
    rng = np.random.default_rng(0)
    apart = []
    for theta in (centre, model.theta, centre + 0.2 * rng.standard_normal(len(centre))):
        off = ((theta - centre) / spread)[:-2]
        penalty = 0.5 * off @ off + np.log1p((theta[-2:] / _paired_likelihood._ANGLE_SPREADS) ** 2).sum()
        dense = Dense(model, values, options, theta).minus_log_density() + penalty
        apart.append(function(theta)[0] - dense)
        steps = 1e-5 * np.eye(len(theta))
        numeric = [(function(theta + step)[0] - function(theta - step)[0]) / 2e-5 for step in steps]
        assert function(theta)[1] == pytest.approx(np.array(numeric), abs=1e-5)
    assert apart == pytest.approx([0.0] * 3, abs=1e-8)
    assert function(model.theta)[0] < function(centre)[0]


@given(
    st.integers(0, 10_000),
    st.integers(0, 4),
    st.integers(0, 4),
    st.lists(st.floats(-1.2, 1.2), min_size=2, max_size=2),
)
@settings(deadline=None, max_examples=15)
def test_predictions_are_those_of_the_dense_covariance(
    seed: int, missing: int, partial: int, angles: list[float]
) -> None:
    points, values, options = some_readings(seed, 16, missing, partial)
    rng = np.random.default_rng(seed)
    centre = np.concatenate(
        [np.full(3, -1.1), [-1.9, -1.9, 0.7, 2.5, 0.0, -0.7, -0.7, -2.0], [0.3, -1.0], angles]
    )
    theta = centre + np.append(0.5 * rng.standard_normal(13), [0.0, 0.0])
    model = PairedSurrogate(POSITIONS, points, values, theta=theta, **options)
    dense = Dense(model, values, options, theta)
    at = some_points(rng, 9)
    mean, covariance = dense.posterior(at)
    means, deviations = model.predict(at)
    assert means == pytest.approx(values[:, 0].mean() + dense.scale * mean, abs=1e-7)
    assert deviations == pytest.approx(dense.scale * np.sqrt(np.diag(covariance)), abs=1e-7)
    assert model.noise == pytest.approx(dense.scale * np.sqrt(dense.noise[0, 0]))
    for rough, exact in zip(model.rough(at), (means, deviations), strict=True):
        assert rough == pytest.approx(exact, abs=2e-3 * dense.scale)
    weights = np.array([1 / 4] * 4 + [-1 / 5] * 5)
    effect, sd = model.contrast(at[:4], at[4:])
    assert effect == pytest.approx(dense.scale * weights @ mean, abs=1e-7)
    assert sd == pytest.approx(dense.scale * np.sqrt(weights @ covariance @ weights), abs=1e-6)
    normal = rng.standard_normal((50, 4))
    drawn, given_them, left = model.draw(at[:4], at[4:], normal)
    own = covariance[:4, :4]
    gain = np.linalg.solve(own, covariance[:4, 4:]).T
    centred = (drawn - means[:4]) / dense.scale
    assert given_them == pytest.approx(means[4:] + dense.scale * centred @ gain.T, abs=1e-5)
    rest = np.diag(covariance[4:, 4:] - gain @ covariance[:4, 4:])
    assert left == pytest.approx(dense.scale * np.sqrt(np.maximum(rest, 1e-10)), abs=1e-5)


def test_one_more_reading_moves_the_mean_by_what_both_of_its_values_tell() -> None:
    points, values, options = some_readings(3, 14, 2, 2)
    theta = PairedSurrogate(POSITIONS, points, values, **options).theta
    theta[-2:] = [-0.6, 0.2]
    model = PairedSurrogate(POSITIONS, points, values, theta=theta, **options)
    at = some_points(np.random.default_rng(5), 3)
    before = model.predict(at)[1]
    # Conditioned on one more pair of readings, whatever they are, the variance falls by the square of the step.
    for i, step in enumerate(model.step(before, at)):
        whole, one = int((~np.isnan(values[:, 1])).sum()), at[i : i + 1]
        grown = PairedSurrogate(
            POSITIONS,
            points[:whole].followed_by(one).followed_by(points[whole:]),
            np.insert(values, whole, np.nanmean(values, axis=0), axis=0),
            theta=theta,
            counts=np.insert(options["counts"], whole, 1.0),
            extra=np.insert(options["extra"], whole, 0.0),
            within=options["within"],
        )
        # The same units as before.
        grown._whole[:-1], grown._single, grown.scales = model._whole, model._single, model.scales
        grown._extra = model._extra
        grown._condition()
        after = grown.predict(at[i : i + 1])[1][0]
        assert step**2 == pytest.approx(before[i] ** 2 - after**2, rel=1e-6)


def test_the_sign_and_unit_of_the_attribute_do_not_matter() -> None:
    points, values, options = some_readings(7, 20, 3, 0)
    at = some_points(np.random.default_rng(1), 6)
    options = {name: options[name] for name in ("counts", "extra")}
    expected = PairedSurrogate(POSITIONS, points, values, **options)
    other = PairedSurrogate(POSITIONS, points, values * [1.0, -1000.0] + [0.0, 5.0], **options)
    for one, two in zip(expected.predict(at), other.predict(at), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    assert other.correlation() == pytest.approx(-expected.correlation(), abs=1e-3)
    assert expected.correlation() < -0.5


def test_what_an_attribute_says_that_has_little_noise_is_believed() -> None:
    """Accuracies that are nearly all noise, and an attribute that shows the truth."""
    rng = np.random.default_rng(0)
    points, at = some_points(rng, 40), some_points(rng, 60)
    effects = rng.standard_normal((3, 4))
    truth, expected = (sum(effects[k, p.index[:, k]] for k in range(3)) for p in (points, at))
    accuracy = 70 + truth + 2 * rng.standard_normal(40)
    values = np.stack([accuracy, 5 - 0.1 * truth + 0.01 * rng.standard_normal(40)], axis=1)
    paired, alone = PairedSurrogate(POSITIONS, points, values), Surrogate(POSITIONS, points, accuracy)
    agreement = [np.corrcoef(model.predict(at)[0], expected)[0, 1] for model in (paired, alone)]
    assert agreement[0] > 0.9 > 0.85 > agreement[1]


def test_an_attribute_that_has_nothing_to_do_with_it_changes_little() -> None:
    gaps = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points, at = some_points(rng, 30), some_points(rng, 50)
        effects = rng.standard_normal((2, 3, 4))
        truth, other = (sum(effects[i, k, points.index[:, k]] for k in range(3)) for i in (0, 1))
        expected = sum(effects[0, k, at.index[:, k]] for k in range(3))
        values = np.stack([truth, other], axis=1) + 0.5 * rng.standard_normal((30, 2))
        paired, alone = PairedSurrogate(POSITIONS, points, values), Surrogate(POSITIONS, points, values[:, 0])
        found = [np.corrcoef(model.predict(at)[0], expected)[0, 1] for model in (paired, alone)]
        gaps.append(found[0] - found[1])
    assert abs(np.mean(gaps)) < 0.02
    assert min(gaps) > -0.08


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([np.nan] * 5, False),
        ([1.0, 2.0, np.nan, np.nan, np.nan], False),
        ([3.0] * 5, False),
        ([70.0, 71.0, 73.0, 72.0, 70.5], False),
        ([-0.30, -0.29, -0.27, -0.28, -0.295], False),
        ([1.0, 2.0, 0.5, np.nan, np.nan], True),
        ([1e200, 2e200, 0.5e200, 1e200, 3e200], True),
        ([70.0, 71.0, 73.0, 72.0, 70.8], True),
    ],
)
def test_when_an_attribute_may_say_anything(second: list[float], expected: bool) -> None:
    first = [70.0, 71.0, 73.0, 72.0, 70.5]
    assert tells(np.stack([first, second], axis=1)) is expected
