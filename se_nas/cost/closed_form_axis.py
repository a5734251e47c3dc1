"""Parameters, multiply-adds and activations as axes of a run: exact for any architecture, in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring
from se_nas.cost.closed_form import CostModel
from se_nas.objectives import Objective
from se_nas.sites import width_at
from se_nas.space import SearchSpace
from se_nas.space.costs import WidthCost

if TYPE_CHECKING:
    import numpy as np


@dataclass(kw_only=True)
class ClosedFormAxis:
    """One exact cost; see ``se_nas.cost.closed_form`` for the sum, and ``CostAxis`` for the methods."""

    objective: Objective
    space: SearchSpace
    baseline: float
    input_size: tuple[int, int, int]
    num_classes: int
    conditions: Mapping[str, Any] = field(default_factory=dict)
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext

    @classmethod
    def prepare(cls, objective: Objective, measuring: Measuring) -> ClosedFormAxis:
        settings = measuring.settings
        model = CostModel.for_architecture(measuring.plain, settings.input_size, settings.num_classes)
        return cls(
            objective=objective,
            space=measuring.space,
            baseline=float(getattr(model.plain, objective.column)),
            input_size=settings.input_size,
            num_classes=settings.num_classes,
        )

    def fields(self, architecture: Architecture, *, measure: bool = False) -> dict[str, Any]:
        cost = self._model(architecture).cost(architecture.widths)
        return {self.objective.column: getattr(cost, self.objective.column)}

    def by_widths(self) -> dict[str, WidthCost]:
        return {
            position: partial(
                _column,
                self._model(self.space.build(position, [width_at(site, None) for site in sites])),
                self.objective.column,
            )
            for position, sites in self.space.sites_by_position.items()
        }

    def remember(self, row: Mapping[str, Any]) -> None:
        """Nothing is worth remembering: it is computed faster than looked up."""

    def adopt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {self.objective.column: row[self.objective.column]}

    def _model(self, architecture: Architecture) -> CostModel:
        return CostModel.for_architecture(architecture, self.input_size, self.num_classes)


def _column(model: CostModel, column: str, widths: np.ndarray) -> np.ndarray:
    """One cost as a function of widths; it can be sent to another process."""
    return model.evaluate(widths)[column]
