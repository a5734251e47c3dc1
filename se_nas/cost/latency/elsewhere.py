"""Latency of another machine: measured where the network will run, predicted everywhere else.

The machine that measures has a `LatencyService`: an ordinary `LatencyAxis` of that device, with its lock, its timings
of the backbone between those of the candidates, and its table. A search has a `LatencyElsewhere`, which predicts from
that table and asks for what has to be measured. What brings a question there and an answer back is a `Measurer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from se_nas.architecture import Architecture
from se_nas.cost.axes import Measuring
from se_nas.cost.latency.axis import LatencyAxis
from se_nas.cost.latency.ratio_axis import FIELDS, RatioAxis
from se_nas.cost.latency.table import LatencyTable
from se_nas.cost.settings import LatencySettings, differences
from se_nas.errors import InfeasibleError, RunError, SeNasError
from se_nas.objectives import LATENCY, Objective
from se_nas.space import SearchSpace

ERROR = "error"
"""Of an answer: why there is none."""


class Measurer(Protocol):
    """The way to a machine that measures; questions and answers are JSON.

    Attributes:
        name: of that machine, or of what it must have, for messages.
    """

    name: str

    def begin(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer of `LatencyService` to what it is asked first; waits for it.

        What was answered before for the same search is not measured again.
        """

    def measure(
        self, architecture: Mapping[str, Any], should_stop: Callable[[], bool]
    ) -> Mapping[str, Any] | None:
        """What `LatencyService.measure` returns; None if the wait for it was ended by ``should_stop``."""


@dataclass(kw_only=True)
class LatencyElsewhere(RatioAxis):
    """The latency axis of a search whose candidates are measured on another machine; a measurement is waited for.

    Attributes:
        measurer: the way to it.
        conditions: under which it measures, see ``LatencyAxis``.
        should_stop: ends a wait for an answer; what was asked is then an error.
    """

    measurer: Measurer
    conditions: Mapping[str, Any]
    should_stop: Callable[[], bool] = lambda: False

    @classmethod
    def prepare(cls, objective: Objective, measuring: Measuring, measurer: Measurer) -> LatencyElsewhere:
        """Have the backbone timed there, and a table measured; waits for both.

        Raises:
            RunError: it cannot be measured there, or not under the conditions of the run that goes on.
        """
        question = {
            "space": measuring.space.to_dict(),
            "plain": measuring.plain.to_dict(),
            "settings": asdict(measuring.settings),
            "seconds": measuring.seconds,
            "candidates": measuring.candidates,
            "width": measuring.width,
        }
        answer = _without_error(measurer.begin(question), measurer)
        frozen = measuring.frozen.get(objective.name)
        if frozen is not None:
            _refuse_differing(frozen["conditions"], answer["conditions"], measurer)
        table = None if answer["table"] is None else LatencyTable.from_dict(answer["table"])
        if table is not None:
            measuring.say(table.check.describe())
        return cls(
            measurer=measurer,
            objective=objective,
            baseline=float(answer["baseline"] if frozen is None else frozen["baseline"]),
            table=table if table is not None and table.passed else None,
            position=measuring.space.position,
            conditions=answer["conditions"],
        )

    def _measured(self, architecture: Architecture) -> dict[str, Any]:
        """See ``RatioAxis``.

        Raises:
            InfeasibleError: the candidate is too large for that machine.
            RunError: the wait was ended, or the other machine cannot measure.
        """
        answer = self.measurer.measure(architecture.to_dict(), self.should_stop)
        if answer is None:
            raise RunError(f"stopped waiting for a measurement on {self.measurer.name}.")
        answer = _without_error(answer, self.measurer)
        _refuse_differing(self.conditions, answer["conditions"], self.measurer)
        fields = {name: answer["fields"][name] for name in FIELDS}
        return fields | {LATENCY.column: fields["latency_ratio"] * self.baseline}


class LatencyService:
    """Answers what `LatencyElsewhere` asks, on the machine that measures.

    Args:
        question: the first one: what will be measured, and how.
        device: on which, as in ``LatencySettings``.
        before: what ``answer`` has given in an earlier process, which stays.
        say: is given what takes time.
        measured: is given how many networks of a table have been measured, of how many.

    Raises:
        SeNasError: the backbone does not fit, the device is not there, or it is not the one of before.
    """

    def __init__(
        self,
        question: Mapping[str, Any],
        device: str = "auto",
        before: Mapping[str, Any] | None = None,
        say: Callable[[str], object] = lambda text: None,
        measured: Callable[[int, int], object] = lambda done, of: None,
    ) -> None:
        given = question["settings"]
        settings = LatencySettings(**{**given, "input_size": tuple(given["input_size"])})
        self._axis = LatencyAxis.prepare(
            LATENCY,
            Measuring(
                space=SearchSpace.from_dict(question["space"]),
                plain=Architecture.from_dict(question["plain"]),
                settings=replace(settings, device=device),
                seconds=question["seconds"],
                candidates=question["candidates"],
                width=question["width"],
                frozen={} if before is None else {LATENCY.name: before},
                say=say,
                measured=measured,
                # Trainings elsewhere would all wait for what is measured one by one.
                packed=True,
            ),
        )

    def answer(self) -> dict[str, Any]:
        """Conditions, the median of the backbone in milliseconds, and the table, if there is one."""
        table = self._axis.table
        return {
            "conditions": dict(self._axis.conditions),
            "baseline": self._axis.baseline,
            "table": None if table is None else table.to_dict(),
        }

    def measure(self, architecture: Mapping[str, Any]) -> dict[str, Any]:
        """Measure one network, in turn with the backbone; or why that cannot be done."""
        try:
            fields = self._axis.fields(Architecture.from_dict(architecture), measure=True)
        except SeNasError as error:
            return {ERROR: str(error), "infeasible": isinstance(error, InfeasibleError)}
        return {"fields": fields, "conditions": dict(self._axis.conditions)}


def _without_error(answer: Mapping[str, Any], measurer: Measurer) -> Mapping[str, Any]:
    if ERROR not in answer:
        return answer
    kind = InfeasibleError if answer.get("infeasible") else RunError
    raise kind(f"latency cannot be measured on {measurer.name}: {answer[ERROR]}")


def _refuse_differing(before: Mapping[str, Any], now: Mapping[str, Any], measurer: Measurer) -> None:
    differing = differences(before, now)
    if differing:
        raise RunError(
            f"{measurer.name} measures latency under other conditions than before, so the values cannot be"
            f" compared: {'; '.join(differing)}."
        )
