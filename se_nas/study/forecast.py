"""What a search promises before it begins: what fits into its budget, in words."""

from __future__ import annotations

from dataclasses import dataclass

from se_nas.errors import ConfigError
from se_nas.study.budget import FEW, FEWEST, Allowance
from se_nas.wording import as_budget, as_words, counted

LEFT_OVER = 0.1
"""Share of the budget that is worth a note if nothing can use it."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What fits into a budget, from the time of one epoch.

    Attributes:
        allowance: the budget and what trainings take of it.
        epochs: of a candidate.
        usual: epochs that the recipe has, or that were asked for.
        trials: candidates that were asked for; None if the budget decides alone.
    """

    allowance: Allowance
    epochs: int
    usual: int
    trials: int | None = None

    @property
    def each(self) -> float:
        """Seconds of one training while as many run as at a time."""
        return self.allowance.each(self.epochs)

    @property
    def candidates(self) -> int:
        """Candidates that fit with their final trainings."""
        return self.allowance.candidates(self.epochs)

    @property
    def final_trainings(self) -> int:
        """Trainings of the final phase that time is kept for."""
        return self.allowance.division.final_trainings(self.candidates)

    @property
    def left_over(self) -> float:
        """Seconds that no candidate can use, because all that there can be fit."""
        division = self.allowance.division
        if self.candidates < division.most:
            return 0.0
        return self.allowance.training_seconds - division.seconds(self.candidates, self.each)

    def describe(self) -> str:
        """What fits, and how the budget is divided."""
        allowance, division = self.allowance, self.allowance.division
        final = division.seconds(self.candidates, self.each, done=self.candidates)
        if not final and division.final_seeds:
            final = allowance.training_seconds - division.seconds(self.candidates, self.each)
        search = allowance.training_seconds - final - self.left_over
        shares = {"search": search, "final seeds": final, "latency": allowance.latency_seconds}
        parts = [f"{name} {as_words(seconds)}" for name, seconds in shares.items() if seconds > 0]
        finals = f" and {counted(self.final_trainings, 'final training')}" if self.final_trainings else ""
        about = "about " if self.candidates else ""
        fit = "fits" if self.candidates == 1 and not finals else "fit"
        return f"{about}{counted(self.candidates, 'candidate')}{finals} {fit} ({', '.join(parts)})"

    def notes(self) -> list[str]:
        """What the user should know about the budget."""
        found = []
        wanted = min(self.trials or FEW, self.allowance.division.most)
        if self.candidates < wanted:
            found.append(
                f"the budget is short: {counted(self.candidates, 'candidate')}"
                f" {'fits' if self.candidates == 1 else 'fit'}; {wanted} need about --budget"
                f" {self.budget_for(wanted)}."
            )
        if self.candidates <= FEWEST and self.allowance.division.final_seeds:
            found.append(
                f"final seeds get only the time that is left, so the front may stay provisional: {FEWEST + 1}"
                " candidates with"
                f" final seeds need about --budget {self.budget_for(FEWEST + 1)}."
            )
        if self.epochs > self.usual:
            found.append(
                f"the budget is more than {counted(self.usual, 'epoch')} per candidate can use, so candidates train"
                f" for {self.epochs}; --epochs {self.usual} keeps the recipe's schedule."
            )
        if self.left_over > LEFT_OVER * self.allowance.budget:
            found.append(
                f"about {as_words(self.left_over)} of the budget will be left over: all"
                f" {counted(self.candidates, 'candidate')} fit in less."
            )
        return found

    def check(self) -> None:
        """Refuse a search that says nothing.

        Raises:
            ConfigError: not even two candidates fit.
        """
        if self.candidates >= min(FEWEST, self.allowance.division.most):
            return
        enough = min(FEW, self.allowance.division.most)
        raise ConfigError(
            f"the budget of {as_words(self.allowance.budget)} is too short: a training takes about"
            f" {as_words(self.each)} here ({counted(self.epochs, 'epoch')} of {self.allowance.epoch:,.1f} s), and"
            f" {'not even one fits' if self.candidates == 0 else 'only one fits'}. Use --budget"
            f" {self.budget_for(enough)} for {enough} candidates with final seeds, --budget"
            f" {self.budget_for(FEWEST)} for {FEWEST} without, or --force to start anyway."
        )

    def budget_for(self, candidates: int) -> str:
        """The budget for so many candidates and their final trainings, as ``--budget`` takes it."""
        return as_budget(self.allowance.needed(candidates, self.epochs))
