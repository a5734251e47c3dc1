"""A search from its plan to its front: begin, go on, stop cleanly, finish."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import se_nas
from se_nas.arguments import checked
from se_nas.backbones import find_sites
from se_nas.errors import DiskError, RunError, SeNasError
from se_nas.report.run import Run
from se_nas.run import CHECKPOINTS, CONFIG, FINAL, SCHEMA, SEARCH, Manifest, RunFolder, write_json
from se_nas.study.analysis import what_mattered
from se_nas.study.attributes import BASELINE
from se_nas.study.budget import is_spent
from se_nas.study.claim import claimed
from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.continuation import resume_command
from se_nas.study.executors import Executor, make_executor
from se_nas.study.executors._processes import refuse_unguarded, wait_for_orphans
from se_nas.study.images import data_facts
from se_nas.study.interrupts import Interrupts
from se_nas.study.phases.finals import Finals, train_finalists
from se_nas.study.phases.search import Search
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import Plan, resolve
from se_nas.study.progress import Progress
from se_nas.study.ray_cluster import actor_needs
from se_nas.study.stopping import Stopping
from se_nas.study.storage import StudyStore, now
from se_nas.study.suggestions import Suggestions
from se_nas.study.warm_start import import_readings
from se_nas.training import disk_used, prune
from se_nas.wording import as_words

_LIBRARIES = ("torch", "timm", "optuna", "fvcore", "numpy", "scipy", "pandas", "scikit-learn")


@checked
def search(config: SearchConfig, progress: Progress | None = None, *, force: bool = False) -> Run:
    """Search, write the run folder, and return the run.

    Args:
        config: what to search.
        progress: receives the search's events; by default they are only logged.
        force: begin even if the budget is too short for two candidates.

    Raises:
        SeNasError: a value does not fit, or the budget is too short; nothing has been written then.
    """
    refuse_unguarded()
    progress = progress or Progress()
    with Interrupts(progress.message, at_once=True), claimed(config) as settled:
        plan = resolve(settled, progress, force=force)
        progress.plan(plan.describe())
        return start(plan, progress)


def start(plan: Plan, progress: Progress) -> Run:
    """Carry out a plan in a new run folder."""
    folder = RunFolder.create(plan.path, plan.config.model_dump(mode="json"), _manifest(plan))
    with _held(folder):
        return _carry_out(plan, folder, progress)


def resume(
    path: str | Path,
    *,
    budget: str | float | None = None,
    trials: int | None = None,
    stop_when_settled: bool | None = None,
    data: str | Path | None = None,
    val_data: str | Path | None = None,
    test_data: str | Path | None = None,
    checkpoint: str | Path | None = None,
    executor: str | None = None,
    ray_resources: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Go on with a run where it stopped: unfinished trials from their checkpoints, then the search.

    Args:
        path: the run folder.
        budget: a new time for everything, the time already spent included.
        trials: a new number of candidates in all.
        stop_when_settled: whether to end when the sampler expects next to nothing more; None: as before.
        data, val_data, test_data, checkpoint: where these files are now, if they have moved; images are recognised by
            their fingerprint.
        executor, ray_resources: where candidates train from now on; None: as before. With another executor, resources
            that are not given are the usual ones.
        progress: receives the search's events.

    Raises:
        RunError: there is no run, another process works on it, or its data has changed.
    """
    refuse_unguarded()
    progress = progress or Progress()
    folder = RunFolder.open(path)
    paths = {"data": data, "val_data": val_data, "test_data": test_data, "checkpoint": checkpoint}
    moved: dict[str, str | None] = {name: str(path) for name, path in paths.items() if path is not None}
    if executor is not None:
        moved |= {"executor": executor, "ray_resources": ray_resources}
    elif ray_resources is not None:
        moved["ray_resources"] = ray_resources
    changes = {"budget": budget, "trials": trials, "stop_when_settled": stop_when_settled}
    given = {name: value for name, value in changes.items() if value is not None}
    config = SearchConfig(**{**folder.config, **moved, **given})
    manifest = folder.manifest
    if manifest.status == "finished" and is_spent(config.budget_seconds, manifest.budget.spent):
        taken, command = as_words(manifest.budget.spent), resume_command(folder, budget=config.budget_seconds)
        progress.message(f"the budget is spent: the run has taken {taken}. To go on:  {command}")
        return Run(folder)
    with Interrupts(progress.message, at_once=True), _held(folder):
        plan = resolve(config, progress, frozen=manifest)
        if plan.data.fingerprint != manifest.data.fingerprint:
            raise RunError(
                f"the data {config.data!r} is not what {folder.path} was searched on: its fingerprint has changed."
            )
        wait_for_orphans(folder.path)
        folder.remove_leftovers()
        if moved:
            write_json(folder.path / CONFIG, {**folder.config, **moved})
            folder.update_manifest(executor=_trains_on(plan))
        progress.plan(plan.describe())
        return _carry_out(plan, folder, progress)


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold the run for this process; if the disk ends it, say how it goes on."""
    try:
        with folder.lock():
            yield
    except DiskError as error:
        raise DiskError(f"{error}\nOnce that is mended, go on with:  se-nas resume {folder.path}") from error


def _carry_out(plan: Plan, folder: RunFolder, progress: Progress) -> Run:
    with Interrupts(progress.message) as interrupts:
        with closing(StudyStore.create(folder, plan.config.objectives)) as store:
            _prepare(plan, store, progress)
            run = _search(plan, folder, store, progress, interrupts)
        run.write_report()
        if not run.interrupted:
            _prune(run, plan, progress)
    run.signal = interrupts.number
    return run


def _prepare(plan: Plan, store: StudyStore, progress: Progress) -> None:
    """Readings of an earlier run and the queue of baselines: all in one write, or what a killed process lacks."""
    with store.together():
        if store.num_trials == 0:
            imported = import_readings(plan.config, plan.space, plan.axes, store)
            if imported:
                progress.message(f"{imported} readings taken over from {plan.config.warm_start}")
        queued = {trial.user_attrs.get(BASELINE) for trial in store.trials()}
        for name, architecture in plan.baselines.items():
            if name not in queued and plan.constraints.allow(architecture):
                store.enqueue(plan.space.params(architecture), architecture, baseline=name)


def _search(
    plan: Plan, folder: RunFolder, store: StudyStore, progress: Progress, interrupts: Interrupts
) -> Run:
    clock = Clock(plan.config.budget_seconds, spent=store.spent + plan.seconds)
    folder.update_manifest(status="running", stop_reason=None)
    try:
        reason, provisional = _run_phases(plan, folder, store, progress, clock, interrupts)
        status = "interrupted" if interrupts.requested else "finished"
    except (Exception, KeyboardInterrupt) as error:
        # A disk that is full refuses this too, and what it says first is what the user has to know.
        with suppress(SeNasError):
            _close(folder, store, clock, status="interrupted", stop_reason=_reason(error))
        raise
    finally:
        progress.close()
    _close(folder, store, clock, status=status, stop_reason=reason, provisional=provisional)
    progress.message(reason)
    return Run(folder)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, SeNasError) else f"{type(error).__name__}: {error}"


def _run_phases(
    plan: Plan,
    folder: RunFolder,
    store: StudyStore,
    progress: Progress,
    clock: Clock,
    interrupts: Interrupts,
) -> tuple[str, bool]:
    """The search, then the final seeds; why the search ended, and whether the front is provisional."""
    config, provisional = plan.config, True
    stopping = Stopping(config.early_stopping, plan.recipe.epochs, config.objectives, store, config.seed)

    def interrupted() -> bool:
        return interrupts.requested or clock.left <= 0

    with _executor(plan, folder, progress) as executor:
        trainings = Trainings(plan, store, executor, stopping, progress, clock, interrupted)
        for axis in plan.axes.values():
            axis.quiet = executor.paused
            for row in store.rows():
                axis.remember(row)
        search = Search(plan, store, Suggestions(plan, store), trainings, clock, interrupts, progress)
        search.take_up()
        progress.phase(SEARCH, search.seconds_left())
        reason = search.run()
        if config.final_seeds > 0:
            finals = Finals(store.rows(), plan)
            if not interrupts.requested:
                progress.phase(FINAL, clock.left)
            report = train_finalists(finals, plan, store, trainings, clock, interrupts, progress)
            folder.update_manifest(finals=report)
            provisional = not finals.settled(store.rows())
    if stopping.active:
        folder.update_manifest(early_stopping=stopping.report())
    folder.update_manifest(**what_mattered(plan, store))
    return reason, provisional


@contextmanager
def _executor(plan: Plan, folder: RunFolder, progress: Progress) -> Iterator[Executor]:
    executor = make_executor(plan.setup(folder), plan.packing, plan.capacities(), progress.message)
    try:
        yield executor
    except BaseException:
        executor.close(kill=True)
        raise
    executor.close()


def _prune(run: Run, plan: Plan, progress: Progress) -> None:
    """Delete the weights that the configuration does not keep, once nothing can need them to go on."""
    folder = run.path / CHECKPOINTS
    kept = {member.key for member in (*run.front, *run.report.baselines)}
    prune(folder, plan.config.keep, kept)
    progress.message(f"checkpoints take {disk_used(folder) / 2**20:.0f} MiB")


def _close(folder: RunFolder, store: StudyStore, clock: Clock, **changes: Any) -> None:
    store.spend(clock.spent)
    store.write_table()
    budget = replace(folder.manifest.budget, spent=round(clock.spent, 1))
    folder.update_manifest(**changes, budget=budget)


def _manifest(plan: Plan) -> Manifest:
    config, data, space = plan.config, plan.data, plan.space
    definition = space.to_dict()
    facts = {
        "schema": SCHEMA,
        "name": plan.path.name,
        "created": now(),
        "se_nas_version": se_nas.__version__,
        "command": " ".join(["se-nas", *sys.argv[1:]])
        if Path(sys.argv[0]).name == "se-nas"
        else "se_nas.search",
        "backbone": config.backbone,
        "timm_kwargs": config.timm_kwargs,
        "space": {
            "name": space.name,
            "size": space.size,
            "fingerprint": space.fingerprint,
            "definition": definition,
        },
        "sites": _sites_of_images(plan),
        "data": data_facts(data),
        "input_size": list(data.input_size),
        "objectives": list(config.objectives),
        "device": _device(plan),
        "measured": {
            name: {"conditions": dict(axis.conditions), "baseline": axis.baseline}
            for name, axis in plan.axes.items()
            if not axis.objective.exact
        },
        "start": plan.start,
        "recipe": plan.recipe.to_dict(),
        "runtime": plan.runtime.to_dict(),
        "compile": plan.compilation.to_dict(),
        "packing": plan.packing.to_dict(),
        "executor": _trains_on(plan),
        "epoch_seconds": plan.epoch_seconds,
        "budget": {"seconds": config.budget_seconds, "trials": config.trials, "spent": 0.0},
        "seed": config.seed,
        "versions": _versions(),
        "status": "running",
        "provisional": True,
        "stop_reason": None,
        "warnings": list(plan.notes),
    }
    return Manifest.from_json(facts)


def _sites_of_images(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """The sites of the space by position, with the sizes of their maps for the run's images."""
    return {
        position: [
            asdict(site)
            for site in find_sites(
                plan.config.backbone,
                position=position,
                input_size=plan.data.input_size,
                **plan.config.timm_kwargs,
            )
        ]
        for position in plan.space.sites_by_position
    }


def _device(plan: Plan) -> dict[str, Any]:
    import torch

    from se_nas.device import device_name

    kind = torch.device(plan.runtime.device).type
    return {"type": kind, "name": device_name(plan.runtime.device), "threads": torch.get_num_threads()}


def _trains_on(plan: Plan) -> dict[str, Any] | None:
    """Where candidates train if not in processes of this machine."""
    if not plan.config.on_ray:
        return None
    needs = actor_needs(plan.config, plan.runtime.device)
    return {"name": plan.config.executor, "resources": needs, "version": version("ray")}


def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
