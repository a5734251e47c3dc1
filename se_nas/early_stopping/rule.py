"""What a rule of early stopping is: it judges one candidate at a rung, from the records of the run.

A new rule is a class in a new file and a row of `RULES` in ``base.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from se_nas.early_stopping.records import Record


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do with a candidate at an epoch.

    Attributes:
        stop: whether to stop it.
        reason: a sentence for the log; empty between rungs.
        probability: chance to join the front at its cost; None if the rule does not estimate one.
        control: the candidate runs to the end whatever the rule says.
    """

    stop: bool
    reason: str = ""
    probability: float | None = None
    control: bool = False


class Rule(Protocol):
    """Judges candidates. It keeps no state: the records are all that it knows."""

    def decide(self, record: Record, epoch: int, others: Sequence[Record], *, reduction: float) -> Decision:
        """Whether the candidate of ``record`` should go on.

        Args:
            record: the candidate with its readings so far; the one at ``epoch`` is finite.
            epoch: the rung that it has reached, a key of ``record.rungs``.
            others: the other candidates of the run, whether finished, stopped or still training.
            reduction: ratio of neighbouring rungs (η), above 1.
        """
