"""How to go on with a run: the command, with a budget that suffices if the run's own is spent."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from se_nas.run import SEARCH, Manifest, RunFolder, TrialRow
from se_nas.study.budget import BUILD_SECONDS, FEW, MARGIN, Allowance, Division
from se_nas.study.packing import Packing
from se_nas.wording import as_budget


def is_spent(folder: RunFolder, budget: float | None) -> bool:
    """Whether a budget in seconds has no time left for another training of a run; never without a budget."""
    manifest = folder.manifest
    each = _training_seconds(manifest, folder.rows()) or 0.0
    return budget is not None and manifest.budget.spent + each >= (1 - MARGIN) * budget


def resume_command(folder: RunFolder, *, budget: float | None) -> str:
    """``se-nas resume runs/x --budget 30m``; the budget is for a few more candidates, and only if ``budget`` is spent.

    Args:
        folder: of the run.
        budget: seconds that the run may take; None for no limit.
    """
    manifest, rows = folder.manifest, folder.rows()
    command = f"se-nas resume {folder.path}"
    if budget is None or not is_spent(folder, budget):
        return command
    each = _training_seconds(manifest, rows)
    if each is None:
        return f"{command} --budget {as_budget(2 * max(budget, manifest.budget.spent))}"
    places = 1 if manifest.packing is None else Packing.from_dict(manifest.packing).at_a_time
    allowance = Allowance(
        budget=budget,
        spent=manifest.budget.spent,
        measures=bool(manifest.measured),
        epoch=each / places,
        overhead=0.0,
        division=Division(final_seeds=folder.config["final_seeds"], places=places),
    )
    done = sum(row.phase == SEARCH and row.complete for row in rows)
    return f"{command} --budget {as_budget(allowance.needed(done + FEW, 1, done=done))}"


def _training_seconds(manifest: Manifest, rows: Sequence[TrialRow]) -> float | None:
    """Seconds of one training: the median of those that have ended, or what the plan and those begun say."""
    complete = [row.seconds for row in rows if row.complete and row.seconds]
    if complete:
        return median(complete)
    known = [row.seconds * row.epochs_planned / max(row.epochs, 0.5) for row in rows if row.seconds]
    if manifest.epoch_seconds is not None:
        known.append(manifest.recipe["epochs"] * manifest.epoch_seconds + BUILD_SECONDS)
    return max(known, default=None)
