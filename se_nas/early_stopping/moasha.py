"""``moasha``: asynchronous successive halving by non-dominated rank.

Schmucker et al., "Multi-objective Asynchronous Successive Halving" (arXiv 2106.12639). The rule compares
readings of the same epoch, so it is blind to what the rest of a curve may bring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from se_nas.early_stopping.records import Record
from se_nas.early_stopping.rule import Decision
from se_nas.pareto import ranks


@dataclass(frozen=True, kw_only=True)
class Moasha:
    """Lets the best of every ``reduction`` candidates at a rung go on, by rank of accuracy and costs."""

    def decide(self, record: Record, epoch: int, others: Sequence[Record], *, reduction: float) -> Decision:
        peers = [r for r in others if epoch in r.rungs and math.isfinite(r.rungs[epoch])]
        if len(peers) + 1 < reduction:
            return Decision(stop=False, reason=f"{len(peers)} others at epoch {epoch}")
        values = np.array([[-r.rungs[epoch], *r.candidate.costs] for r in [record, *peers]])
        rank = ranks(values, ["minimize"] * values.shape[1])
        better = int((rank < rank[0]).sum())
        kept = len(values) / reduction
        reason = f"epoch {epoch}: rank {rank[0]}, {better} of {len(values)} rank better, {kept:.1f} continue"
        return Decision(stop=better >= kept, reason=reason)
