"""Early stopping in the search: what the rule is told of a candidate, and what the sampler is told of a stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from se_nas.architecture import Architecture
from se_nas.early_stopping.base import Candidate, EarlyStopping, StudyTable
from se_nas.samplers._observations import PARTIAL
from se_nas.study.storage import COLUMNS, StudyStore

if TYPE_CHECKING:
    from se_nas.study.config import SearchConfig
    from se_nas.study.plan import Plan


class Stopping:
    """The rule of a run, with its table in the run's study. Finalists are not its concern."""

    def __init__(self, plan: Plan, store: StudyStore) -> None:
        config = plan.config
        self._costs = [COLUMNS[name] for name in config.objectives[1:]]
        self._rule = EarlyStopping(
            config.early_stopping if config.early_stopping != "off" else None,
            epochs=plan.recipe.epochs,
            table=StudyTable(store.study),
            seed=config.seed,
        )

    @classmethod
    def notes(cls, config: SearchConfig, epochs: int) -> list[str]:
        """What the user should know of the rule before the search begins."""
        if config.early_stopping == "off" or EarlyStopping(config.early_stopping, epochs=epochs).rungs:
            return []
        return [
            f"early_stopping {config.early_stopping} without effect: with {epochs} epoch a candidate there is"
            " nothing to stop before its end."
        ]

    @property
    def active(self) -> bool:
        return self._rule.rule is not None

    def goes_on(
        self, number: int, architecture: Architecture, costs: Mapping[str, Any], curve: Curve
    ) -> bool:
        """Whether a candidate is trained further after its last epoch."""
        decision = self._rule.decide(
            self._candidate(number, architecture, costs), len(curve), _accuracies(curve)
        )
        return not decision.stop

    def finished(self, number: int, architecture: Architecture, fields: Mapping[str, Any]) -> None:
        """Teach the rule a candidate that was trained to its end."""
        self._rule.finish(self._candidate(number, architecture, fields), _accuracies(fields["curve"]))

    def expectation(
        self, number: int, architecture: Architecture, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a stopped candidate would have reached, as an attribute that ``ParetoSampler`` reads."""
        found = self._rule.extrapolate(
            self._candidate(number, architecture, fields), _accuracies(fields["curve"])
        )
        if found is None:
            return {}
        costs = [fields[name] for name in self._costs]
        return {PARTIAL: {"mean": [found[0], *costs], "sd": [found[1], *([0.0] * len(costs))]}}

    def report(self) -> dict[str, Any]:
        """What was stopped, and what the control says about wrong stops."""
        return self._rule.report()

    def _candidate(self, number: int, architecture: Architecture, costs: Mapping[str, Any]) -> Candidate:
        return Candidate(
            number=number,
            costs=tuple(float(costs[name]) for name in self._costs),
            # SE blocks learn later than the rest, so how many there are shapes the curve.
            features=(architecture.num_gated / len(architecture.sites),),
            network=architecture.key,
        )


Curve = Sequence[Mapping[str, Any]]


def _accuracies(curve: Curve) -> list[float]:
    return [float("nan") if entry["accuracy"] is None else float(entry["accuracy"]) for entry in curve]
