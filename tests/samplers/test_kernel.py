"""The order of a parameter's choices, and how alike they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from se_nas.samplers._grid import Grid
from se_nas.samplers._kernel import ChoiceCorrelations

GAMMAS = (0, 16, 8, 4, 2)


def _order(grid: Grid, sketch: np.ndarray) -> list[list[float]]:
    return [place.tolist() for place in grid.positions(sketch)]


def _se_cost(params: dict[str, int]) -> float:
    """The last stage is a thousand times as dear as the first, as in a real network."""
    return sum(price / gamma for price, gamma in zip((1, 30, 1000), params.values(), strict=True) if gamma)


def test_choices_are_ordered_by_their_own_cost_however_dear_other_parameters_are() -> None:
    grid = Grid({f"stage{i}": GAMMAS for i in range(3)}, known={1: _se_cost})
    rising = [0.0, 0.25, 0.5, 0.75, 1.0]
    assert _order(grid, grid.everything()) == [rising] * 3
    sketch = grid.sample(100, np.random.default_rng(0))
    assert _order(grid, sketch) == [rising] * 3


def test_an_order_by_chance_is_none_where_costs_do_not_add_up() -> None:
    """``free`` costs nothing; over a sketch the means of its choices differ all the same."""
    grid = Grid(
        {"free": ("a", "b", "c"), "width": (1, 2, 3), "depth": (1, 2, 3), "resolution": (1, 2, 3)},
        known={0: lambda p: (p["width"] * p["depth"] * p["resolution"]) ** 2},
    )
    free, *others = grid.positions(grid.sample(200, np.random.default_rng(1)))
    assert np.isnan(free).all()
    assert [place.tolist() for place in others] == [[0.0, 0.5, 1.0]] * 3


def test_choices_of_equal_cost_share_a_place() -> None:
    price = {"none": 0.0, "a": 0.1, "b": 0.1, "c": 0.3}
    grid = Grid(
        {"gate": tuple(price), "other": tuple(range(7))},
        known={0: lambda p: price[p["gate"]] + p["other"] / 7},
    )
    assert _order(grid, grid.everything())[0] == [0.0, 0.5, 0.5, 1.0]


def test_numbers_without_a_cost_keep_their_own_order_and_words_have_none() -> None:
    grid = Grid({"size": (3, 1, 2), "kind": ("x", "y", None)}, known={0: lambda p: 1.0})
    size, kind = grid.positions(grid.everything())
    assert size.tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(kind).all()


def test_a_table_by_hand() -> None:
    """Share 0.75, scale 0.5, power 2: choices at 0, 1/4 and 1."""
    (table,) = ChoiceCorrelations([np.array([0.0, 0.5, 1.0])]).tables(np.log(3), np.log(0.5), np.log(2))
    near, far, middle = (0.75 * np.exp(-((gap / 0.5) ** 2)) for gap in (0.25, 1.0, 0.75))
    assert table == pytest.approx(np.array([[1, near, far], [near, 1, middle], [far, middle, 1]]))


def test_a_choice_without_a_place_and_parameters_without_an_order_are_unlike() -> None:
    some, pair, words = ChoiceCorrelations(
        [np.array([np.nan, 0.0, 1.0]), np.array([0.0, 1.0]), np.full(3, np.nan)]
    ).tables(2.0, 0.0, 0.0)
    assert some[0].tolist() == [1.0, 0.0, 0.0]
    assert 0 < some[1, 2] < 1
    assert pair.tolist() == np.eye(2).tolist()
    assert words.tolist() == np.eye(3).tolist()


LEARNED = st.tuples(st.floats(-4, 8), st.floats(-2.4, 1.6), st.floats(-2.7, 1.3))


@given(LEARNED, st.lists(st.sampled_from([np.nan, 0.0, 0.2, 0.5, 0.7, 1.0]), min_size=3, max_size=8))
@settings(deadline=None)
def test_tables_are_correlations_and_slopes_are_their_derivatives(
    learned: tuple[float, float, float], places: list[float]
) -> None:
    choices = ChoiceCorrelations([np.array(places)])
    (table,) = choices.tables(*learned)
    assert table.diagonal() == pytest.approx(np.ones(len(places)))
    assert np.linalg.eigvalsh(table).min() > -1e-9
    assert (table == table.T).all()
    for k in choices.ordered:
        for i, slope in enumerate(choices.slopes(k, *learned)):
            up, down = list(learned), list(learned)
            up[i] += 1e-5
            down[i] -= 1e-5
            numeric = (choices.tables(*up)[k] - choices.tables(*down)[k]) / 2e-5
            assert slope == pytest.approx(numeric, abs=1e-6)
