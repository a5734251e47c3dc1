"""A search from its plan to its front: begin, go on, stop cleanly, finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from se_nas.arguments import checked
from se_nas.checkpoints import fingerprint
from se_nas.cost.latency.elsewhere import LatencyElsewhere
from se_nas.errors import DiskError, RunError, SeNasError
from se_nas.report.run import Run
from se_nas.run import CHECKPOINTS, CONFIG, FINAL, SEARCH, Manifest, RunFolder, write_json
from se_nas.study import peers
from se_nas.study.address import check_address, check_study
from se_nas.study.analysis import what_mattered
from se_nas.study.attributes import BASELINE
from se_nas.study.claim import claimed
from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.continuation import is_spent, resume_command
from se_nas.study.display import progress_of
from se_nas.study.executors import Executor, make_executor
from se_nas.study.executors._processes import refuse_unguarded, wait_for_orphans
from se_nas.study.interrupts import Interrupts
from se_nas.study.paths import absolute_paths, asked, located
from se_nas.study.patience import Patience
from se_nas.study.phases.finals import choose_once, train_finalists
from se_nas.study.phases.search import Search
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import LOGS, Plan, resolve
from se_nas.study.progress import Progress
from se_nas.study.provenance import make_manifest, trains_on
from se_nas.study.shared_storage import SharedStore
from se_nas.study.signs_of_life import signs_of_life
from se_nas.study.stopping import Stopping
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Suggestions
from se_nas.study.tracking.tracking import tracked
from se_nas.study.warm_start import import_readings
from se_nas.training import disk_used, prune
from se_nas.wording import as_words


@checked
def search(config: SearchConfig, progress: Progress | bool | None = None, *, force: bool = False) -> Run:
    """Search, write the run folder, and return the run.

    Args:
        config: what to search.
        progress: receives the search's events. True shows them, False does not; by default they are shown on a
            terminal and in a notebook. They are logged in any case.
        force: begin even if the budget is too short for two candidates.

    Raises:
        SeNasError: a value does not fit, or the budget is too short; nothing has been written then.
    """
    refuse_unguarded()
    progress = progress_of(progress)
    with Interrupts(progress.message, at_once=True), claimed(config) as settled:
        if settled.storage is not None:
            settled = settled.model_copy(update={"study": settled.study or settled.name})
            peers.check_free(settled)
        plan = resolve(settled, progress, force=force)
        progress.plan(plan.describe())
        return start(plan, progress)


def start(plan: Plan, progress: Progress) -> Run:
    """Carry out a plan in a new run folder."""
    manifest = make_manifest(plan)
    if plan.config.storage is not None:
        peers.create(
            plan, manifest, lambda store: _prepare(plan, store, progress), Patience(progress.message)
        )
        folder = peers.run_folder(plan.path, plan.config, manifest)
        with _held(folder, alone=False):
            return _carry_out(plan, folder, progress)
    folder = RunFolder.create(plan.path, plan.config.model_dump(mode="json"), manifest)
    with _held(folder):
        return _carry_out(plan, folder, progress)


def work(
    storage: str,
    study: str,
    *,
    wait: float = 0.0,
    progress: Progress | bool | None = None,
    **own: Any,
) -> Run:
    """Take part in a study that another process has begun (``SearchConfig.storage``), until it is done.

    Args:
        storage: the address of the database.
        study: the study's name.
        wait: seconds to wait for the study to be begun, and for a server that does not answer.
        progress: receives the events of this worker; as in `search`.
        own: fields of `SearchConfig` that are this worker's: where data and weights are (``data``, ``val_data``,
            ``test_data``, ``checkpoint``), ``device`` and ``runs``.

    Raises:
        RunError: there is no such study, or data, device or versions are not those that it was begun with.
        SeNasError: a value does not fit.
    """
    refuse_unguarded()
    progress = progress_of(progress)
    values, manifest = peers.read(
        check_address(storage), check_study(study), writes=True, wait=wait, say=progress.message
    )
    peers.check_versions(manifest)
    config = SearchConfig(**{**values, "storage": storage, **own})
    peers.check_device(manifest, config.device)
    with Interrupts(progress.message, at_once=True):
        plan = _resumed(config, manifest, progress)
        folder = peers.run_folder(plan.path, config, manifest)
        progress.plan(plan.describe())
        with _held(folder, alone=False):
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
    log: str | Sequence[str] | None = None,
    progress: Progress | bool | None = None,
) -> Run:
    """Go on with a run where it stopped: unfinished trials from their checkpoints, then the search.

    Args:
        path: the run folder.
        budget: a new time for everything, the time already spent included.
        trials: a new number of candidates in all. Both hold for later calls too, and stand in the manifest.
        stop_when_settled: whether to end when the sampler expects next to nothing more; None: as before.
        data, val_data, test_data, checkpoint: where these files are now, if they have moved; images are recognised by
            their fingerprint, and so are weights.
        executor, ray_resources: where candidates train from now on; None: as before. With another executor, resources
            that are not given are the usual ones.
        log: loggers from now on (`SearchConfig.log`), () for none; None: as before. A new one gets the earlier trials.
        progress: as in `search`.

    Raises:
        RunError: there is no run, another process works on it, or its data or its checkpoint has changed.
    """
    refuse_unguarded()
    progress = progress_of(progress)
    folder = RunFolder.open(path)
    paths = {"data": data, "val_data": val_data, "test_data": test_data, "checkpoint": checkpoint}
    moved: dict[str, Any] = {name: str(path) for name, path in paths.items() if path is not None}
    if executor is not None:
        moved |= {"executor": executor, "ray_resources": ray_resources}
    elif ray_resources is not None:
        moved["ray_resources"] = ray_resources
    if log is not None:
        moved["log"] = log if isinstance(log, str) else list(log)
    changes = {"budget": budget, "trials": trials, "stop_when_settled": stop_when_settled}
    given = {name: value for name, value in changes.items() if value is not None}
    manifest = folder.manifest
    if checkpoint is not None and asked(folder).checkpoint is None:
        raise RunError(f"{manifest.name} was started without a checkpoint; leave checkpoint out.")
    config = SearchConfig(**{**located(asked(folder).model_dump(), manifest.paths), **moved, **given})
    if config.storage is not None:
        if given:
            with closing(peers.connect(config, folder)) as store:
                peers.change_limits(store, given)
        own = {name: getattr(config, name) for name in (*paths, "device", "log")}
        assert config.study is not None
        return work(config.storage, config.study, progress=progress, runs=str(folder.path.parent), **own)
    # What an earlier resume was given holds on; config.json is what the run began with.
    limits = {"budget": manifest.budget.seconds, "trials": manifest.budget.trials}
    config = SearchConfig(**{**config.model_dump(), **limits, **given})
    if manifest.status == "finished" and is_spent(folder, config.budget_seconds):
        taken, command = as_words(manifest.budget.spent), resume_command(folder, budget=config.budget_seconds)
        progress.message(f"the budget is spent: the run has taken {taken}. To continue:  {command}")
        return Run(folder)
    with Interrupts(progress.message, at_once=True), _held(folder):
        plan = _resumed(config, manifest, progress)
        wait_for_orphans(folder.path)
        folder.remove_leftovers()
        if moved:
            write_json(folder.path / CONFIG, {**folder.config, **moved})
            places = {**manifest.paths, **absolute_paths(moved)}
            folder.update_manifest(executor=trains_on(plan), paths=places, start=plan.start)
        folder.update_manifest(
            budget=replace(manifest.budget, seconds=config.budget_seconds, trials=config.trials)
        )
        progress.plan(plan.describe())
        return _carry_out(plan, folder, progress)


@contextmanager
def _held(folder: RunFolder, *, alone: bool = True) -> Iterator[None]:
    """Hold the run for this process, if it works ``alone`` on it; if the disk ends it, say how it goes on."""
    try:
        with folder.lock() if alone else nullcontext():
            yield
    except DiskError as error:
        raise DiskError(
            f"{error}\nOnce this is fixed, continue with:  se-nas resume {folder.path}"
        ) from error


def _resumed(config: SearchConfig, manifest: Manifest, progress: Progress) -> Plan:
    """The plan of a run that was begun, on the same images."""
    _check_weights(config, manifest)
    plan = resolve(config, progress, frozen=manifest)
    if plan.data.fingerprint != manifest.data.fingerprint:
        raise RunError(
            f"the data {config.data!r} is not what {manifest.name} was searched on: its fingerprint has changed."
        )
    return plan


def _check_weights(config: SearchConfig, manifest: Manifest) -> None:
    """Candidates that begin later begin with the same weights."""
    known = manifest.checkpoint_fingerprint
    if config.checkpoint is not None and known is not None and fingerprint(config.checkpoint) != known:
        raise RunError(
            f"the checkpoint {config.checkpoint!r} is not what {manifest.name} was searched with: its fingerprint has"
            " changed."
        )


def _carry_out(plan: Plan, folder: RunFolder, progress: Progress) -> Run:
    with Interrupts(progress.message) as interrupts:
        store: StudyStore
        if plan.config.storage is not None:
            store = peers.connect(plan.config, folder, patience=Patience(progress.message))
        else:
            store = StudyStore.create(folder, plan.config.objectives)
        with closing(store):
            if not store.shared:
                _prepare(plan, store, progress)
            logs = folder.path / LOGS
            with tracked(plan.config.log or (), folder.manifest, logs, store, progress) as watching:
                run = _search(plan, folder, store, watching, interrupts)
        if not store.shared or not run.interrupted:
            _write_report(run, folder, plan, progress)
    run.signal = interrupts.number
    return run


def _write_report(run: Run, folder: RunFolder, plan: Plan, progress: Progress) -> None:
    with ExitStack() as stack:
        if plan.config.storage is not None:
            try:
                stack.enter_context(folder.lock())
            except RunError:
                # Another worker of a shared folder is writing the same.
                return
        run.write_report()
        if not run.interrupted:
            _prune(run, plan, progress)


def _prepare(plan: Plan, store: StudyStore, progress: Progress) -> None:
    """Readings of an earlier run and the queue of baselines: all in one write, or what a killed process lacks."""
    with store.together():
        if store.num_trials == 0:
            imported = import_readings(plan.config, plan.space, plan.axes, store, plan.earlier)
            for run, count in imported.items():
                progress.message(f"{count} readings were taken over from {run}")
        queued = {trial.user_attrs.get(BASELINE) for trial in store.trials()}
        for name, architecture in plan.baselines.items():
            if name not in queued and plan.constraints.allow(architecture):
                store.enqueue(plan.space.params(architecture), architecture, baseline=name)


def _search(
    plan: Plan, folder: RunFolder, store: StudyStore, progress: Progress, interrupts: Interrupts
) -> Run:
    clock = Clock(plan.config.budget_seconds, spent=store.spent + plan.seconds)
    if not store.shared:
        folder.update_manifest(status="running", stop_reason=None)
    try:
        with signs_of_life(store, clock):
            found = _run_phases(plan, folder, store, progress, clock, interrupts)
        status = "interrupted" if interrupts.requested else "finished"
    except (Exception, KeyboardInterrupt) as error:
        # A disk that is full refuses this too, and what it says first is what the user has to know.
        with suppress(SeNasError):
            store.leave_all()
            _close(folder, store, clock, status="interrupted", stop_reason=_reason(error))
        raise
    finally:
        progress.close()
    _close(folder, store, clock, status=status, **found)
    progress.message(found["stop_reason"])
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
) -> dict[str, Any]:
    """The search, then the final seeds; returns what the manifest says about them."""
    config = plan.config
    found: dict[str, Any] = {"provisional": True}
    stopping = Stopping(config.early_stopping, plan.recipe.epochs, config.objectives, store, config.seed)

    def interrupted() -> bool:
        return interrupts.requested or clock.left <= 0

    with _executor(plan, folder, progress) as executor:
        trainings = Trainings(plan, store, executor, stopping, progress, clock, interrupted)
        for axis in plan.axes.values():
            axis.quiet = executor.paused
            if isinstance(axis, LatencyElsewhere):
                axis.should_stop = interrupted
            for row in store.rows():
                axis.remember(row)
        aside = plan.suggests_ahead and not store.shared
        if aside:
            store.write_in_background()
        suggestions = Suggestions(plan, store, in_process=aside)
        search = Search(plan, store, suggestions, trainings, clock, interrupts, progress)
        progress.phase(SEARCH, search.seconds_left())
        found["stop_reason"] = search.run()
        if config.final_seeds > 0:
            finals = choose_once(plan, store)
            if not interrupts.requested:
                progress.phase(FINAL, clock.left)
            found["finals"] = train_finalists(finals, plan, store, trainings, clock, interrupts, progress)
            found["provisional"] = not finals.settled(store.rows())
    if stopping.active:
        found["early_stopping"] = stopping.report()
    return found | what_mattered(plan, store)


@contextmanager
def _executor(plan: Plan, folder: RunFolder, progress: Progress) -> Iterator[Executor]:
    setup = plan.setup(folder)
    setup.folder.mkdir(parents=True, exist_ok=True)
    executor = make_executor(setup, plan.packing, plan.capacities(), progress.message)
    try:
        yield executor
    except BaseException:
        executor.close(kill=True)
        raise
    executor.close()
    if setup.folder != folder.path:
        with suppress(OSError):
            setup.folder.rmdir()


def _prune(run: Run, plan: Plan, progress: Progress) -> None:
    """Delete the weights that the configuration does not keep, once nothing can need them to go on."""
    folder = run.path / CHECKPOINTS
    kept = {member.key for member in (*run.front, *run.report.baselines)}
    prune(folder, plan.config.keep, kept)
    progress.message(f"checkpoints take {disk_used(folder) / 2**20:.0f} MiB")


def _close(folder: RunFolder, store: StudyStore, clock: Clock, **changes: Any) -> None:
    store.spend(clock.spent)
    store.refresh()
    store.flush()
    store.write_table()
    if store.shared and changes["status"] != "finished":
        # The run goes on with the other workers, or with the next.
        return
    budget = replace(folder.manifest.budget, spent=round(clock.spent, 1))
    folder.update_manifest(**changes, budget=budget)
    if isinstance(store, SharedStore):
        peers.close_run(store, folder.manifest)
