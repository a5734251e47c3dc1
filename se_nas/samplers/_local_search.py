"""Local search for the best point of a space that is too large to enumerate, or continuous."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from se_nas.samplers._grid import Array, Index
from se_nas.samplers._reachable import Reachable


def local_search(
    space: Reachable,
    front: Index,
    others: Index,
    weigh: Callable[[Index], Array],
    rng: np.random.Generator,
) -> tuple[Index, Array]:
    """Search around a front: by neighbours and mutations of its members, by crossing them, and from random points.

    Continuous parameters are searched by quasi-random points around the front too.

    Args:
        space: what trials can ask for.
        front: (n_front, n_params) points to search around.
        others: (n, n_params) further points to start from.
        weigh: function from rows (n, n_params) to scores (n,); more is better.
        rng: source of everything random.

    Returns:
        Allowed points (n_found, n_params), each once, and their scores (n_found,).
    """
    grid = space.grid
    front = front[rng.permutation(len(front))[:32]]
    mutated = front[rng.integers(len(front), size=2_000)]
    change = rng.random(mutated.shape) < 2.5 / mutated.shape[1]
    mutated = np.where(change, grid.sample(len(mutated), rng), mutated)
    crossed = np.where(
        rng.random((1_000, front.shape[1])) < 0.5,
        front[rng.integers(len(front), size=1_000)],
        front[rng.integers(len(front), size=1_000)],
    )
    found = space.allowed(
        np.concatenate(
            [
                grid.neighbours(front),
                mutated,
                crossed,
                grid.sample(1_000, rng),
                others,
                grid.around(front, rng),
            ]
        )
    )
    scores = weigh(found)
    for _ in range(4):
        top = found[np.argsort(-scores, kind="stable")[:24]]
        more = space.canonical(grid.neighbours(top))
        more = more[~np.isin(grid.identify(more), grid.identify(found))]
        if not len(more):
            break
        more = space.allowed(more)
        found, scores = np.concatenate([found, more]), np.concatenate([scores, weigh(more)])
    return found, scores
