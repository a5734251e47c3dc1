"""A search from its plan to its front: begin, go on, stop cleanly, finish."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import se_nas
from se_nas.data import ImageData
from se_nas.errors import RunError, SeNasError
from se_nas.report.run import Run
from se_nas.run import CHECKPOINTS, RunFolder
from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.executors.process_pool import wait_for_orphans
from se_nas.study.interrupts import Interrupts
from se_nas.study.parallel import ParallelWorker
from se_nas.study.phases.search import Worker
from se_nas.study.plan import Plan, resolve
from se_nas.study.progress import Progress
from se_nas.study.storage import StudyStore, now
from se_nas.study.warm_start import import_readings
from se_nas.training import disk_used, prune

_LIBRARIES = ("torch", "timm", "optuna", "fvcore", "numpy", "scipy", "pandas", "scikit-learn")


def search(config: SearchConfig, progress: Progress | None = None) -> Run:
    """Search, write the run folder, and return the run.

    Args:
        config: what to search.
        progress: receives the search's events; by default they are only logged.

    Raises:
        SeNasError: a value does not fit; nothing has been written then.
    """
    progress = progress or Progress()
    plan = resolve(config, progress)
    progress.plan(plan)
    return start(plan, progress)


def start(plan: Plan, progress: Progress) -> Run:
    """Carry out a plan in a new run folder."""
    folder = RunFolder.create(plan.path, plan.config.model_dump(mode="json"), _manifest(plan))
    with folder.lock():
        store = StudyStore.create(folder, plan.config.objectives)
        imported = import_readings(plan, store)
        if imported:
            progress.message(f"{imported} readings taken over from {plan.config.warm_start}")
        for name, architecture in plan.baselines.items():
            if plan.limits.allow(plan, architecture):
                store.enqueue(plan.space.params(architecture), architecture, baseline=name)
        return _carry_out(plan, folder, store, progress)


def resume(
    path: str | Path,
    *,
    budget: str | float | None = None,
    trials: int | None = None,
    stop_when_settled: bool | None = None,
    progress: Progress | None = None,
) -> Run:
    """Go on with a run where it stopped: unfinished trials from their checkpoints, then the search.

    Args:
        path: the run folder.
        budget: a new time for everything, the time already spent included.
        trials: a new number of candidates in all.
        stop_when_settled: whether to end when the sampler expects next to nothing more; None: as before.
        progress: receives the search's events.

    Raises:
        RunError: there is no run, another process works on it, or its data has changed.
    """
    progress = progress or Progress()
    folder = RunFolder.open(path)
    changes = {"budget": budget, "trials": trials, "stop_when_settled": stop_when_settled}
    given = {name: value for name, value in changes.items() if value is not None}
    config = SearchConfig(**{**folder.config, **given})
    manifest = folder.manifest
    with folder.lock():
        plan = resolve(config, progress, frozen=manifest)
        if plan.data.fingerprint != manifest["data"]["fingerprint"]:
            raise RunError(
                f"the data {config.data!r} is not what {folder.path} was searched on: its fingerprint has changed."
            )
        wait_for_orphans(folder.path)
        store = StudyStore.open(folder)
        progress.plan(plan)
        return _carry_out(plan, folder, store, progress)


def _carry_out(plan: Plan, folder: RunFolder, store: StudyStore, progress: Progress) -> Run:
    clock = Clock(plan.config.budget_seconds, spent=store.spent)
    folder.update_manifest(status="running", stop_reason=None)
    try:
        with Interrupts(progress) as interrupts:
            kind = ParallelWorker if plan.config.per_gpu > 1 else Worker
            worker = kind(plan, folder, store, progress, clock, interrupts)
            reason = worker.work()
            status = "interrupted" if interrupts.requested else "finished"
    except SeNasError as error:
        _close(folder, store, clock, status="interrupted", stop_reason=str(error))
        raise
    except KeyboardInterrupt:
        _close(folder, store, clock, status="interrupted", stop_reason="interrupted")
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        _close(folder, store, clock, status="interrupted", stop_reason=reason)
        raise
    finally:
        progress.close()
    _close(folder, store, clock, status=status, stop_reason=reason, provisional=worker.provisional)
    progress.message(reason)
    run = Run(folder)
    run.write_report()
    if not run.interrupted:
        _prune(run, plan, progress)
    return run


def _prune(run: Run, plan: Plan, progress: Progress) -> None:
    """Delete the weights that the configuration does not keep, once nothing can need them to go on."""
    folder = run.path / CHECKPOINTS
    kept = {member.key for member in (*run.front, *run.report.baselines)}
    prune(folder, plan.config.keep, kept)
    progress.message(f"checkpoints take {disk_used(folder) / 2**20:.0f} MiB")


def _close(folder: RunFolder, store: StudyStore, clock: Clock, **changes: Any) -> None:
    store.spend(clock.spent)
    store.write_table()
    budget = {**folder.manifest["budget"], "spent": round(clock.spent, 1)}
    folder.update_manifest(**changes, budget=budget)


def _manifest(plan: Plan) -> dict[str, Any]:
    config, data, space = plan.config, plan.data, plan.space
    definition = space.to_dict()
    return {
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
        "sites": definition["sites"],
        "data": data_facts(data),
        "input_size": list(data.input_size),
        "objectives": list(config.objectives),
        "device": _device(plan),
        "latency": None if plan.axis is None else plan.axis.meter.conditions,
        "baseline_latency_ms": None if plan.axis is None else plan.axis.baseline_ms,
        "recipe": plan.recipe.to_dict(),
        "runtime": plan.runtime.to_dict(),
        "compile": plan.compilation.to_dict(),
        "epoch_seconds": plan.epoch_seconds,
        "budget": {"seconds": config.budget_seconds, "trials": config.trials, "spent": 0.0},
        "seed": config.seed,
        "versions": _versions(),
        "status": "running",
        "provisional": True,
        "stop_reason": None,
        "warnings": list(plan.notes),
    }


def data_facts(data: ImageData) -> dict[str, Any]:
    """What a manifest says of the data."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "num_train": len(data.train),
        "num_val": len(data.val),
        "num_test": 0 if data.test is None else len(data.test),
        "split_seed": data.split_seed,
        "skipped": list(data.skipped),
        "mean": list(data.mean),
        "std": list(data.std),
    }


def _device(plan: Plan) -> dict[str, Any]:
    import torch

    from se_nas.device import device_name

    kind = torch.device(plan.runtime.device).type
    return {"type": kind, "name": device_name(plan.runtime.device), "threads": torch.get_num_threads()}


def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
