"""``retrain``: checks the request, trains the network, logs the training and exports the result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import se_nas
from se_nas.arguments import checked
from se_nas.checkpoints.sealed import load_sealed
from se_nas.cost import measure_cost
from se_nas.data.checking import UNREADABLE
from se_nas.errors import ConfigError, DataError, RunError
from se_nas.exporting.package import Exported, check_request, export_model
from se_nas.objectives import COSTS
from se_nas.report import Candidate, ParetoReport, Run
from se_nas.report.picks import Pick
from se_nas.report.picks import pick as pick_from
from se_nas.retraining.job import Job, prepare
from se_nas.run import CostReading, Manifest, RunFolder, TrialRow, disk_error, read_json, write_json
from se_nas.study.candidate import start
from se_nas.study.display import progress_of
from se_nas.study.executors.task import Task
from se_nas.study.images import data_facts
from se_nas.study.interrupts import Interrupts, Stopped
from se_nas.study.plan import LOGS
from se_nas.study.progress import Progress
from se_nas.study.tracking import RETRAINED, StudyFacts, make_loggers
from se_nas.study.tracking.single import LoggedTraining, logged_training
from se_nas.training import (
    Context,
    Metrics,
    checkpoint_path,
    evaluate,
    train,
)
from se_nas.wording import counted, first_of

PARTIAL = ".partial"
"""Ending of the folder beside ``out`` that holds a retraining until it is done."""
SETTINGS = "retrain.json"
BEGUN = "begun"
"""The key in that file of the time when the retraining began, by which loggers tell it from one with equal settings."""
_FOUND = ("accuracy", "top5", "loss", "ece", "test_accuracy")


@checked
def retrain(
    run: Run | str | Path,
    pick: str | int = "best",
    *,
    out: str | Path,
    data: str | Path | None = None,
    val_data: str | Path | None = None,
    test_data: str | Path | None = None,
    epochs: int | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    input_size: int | None = None,
    from_weights: bool = False,
    seed: int = 0,
    device: str = "auto",
    strict: bool = False,
    format: str | Sequence[str] = "timm",
    standalone: bool = False,
    force: bool = False,
    log: str | Sequence[str] | None = None,
    progress: Progress | bool | None = None,
) -> Exported:
    """Train a candidate of a run on a full recipe and export the result.

    Until that is done everything is in ``<out>.partial``, a checkpoint after every epoch; the same call goes
    on from there, also after it was killed. ``out`` appears whole.

    Args:
        run: a run folder, or what ``search`` and ``open_run`` return.
        pick: "best", "knee", "one-se", "under:BUDGET", a trial's number or the beginning of a key.
        out: the folder to write, which must not exist or be empty.
        data, val_data, test_data, input_size: as in a search; by default those of the run.
        epochs: passes over the training images; by default the recipe's, or the run's if those are more.
        recipe: a preset or a mapping of settings; by default the run's.
        batch_size: instead of the recipe's.
        from_weights: start from the candidate's kept weights instead of as the search's candidates did (from
            scratch, or from the weights that the run started from). Another set of classes gets a new
            classifier.
        seed: of first weights and data order.
        format, standalone, force: as in ``export``.
        log: loggers, as in a search; none unless given. The training is one run, in a group named like ``out``.
            Their files are in ``logs/retrained/NAME`` of the run folder.
        progress: is notified of every epoch. True shows them, False does not; by default they are shown on a
            terminal and in a notebook.

    Raises:
        ConfigError: a value does not fit, ``out`` is taken, an unfinished retraining there is another one,
            or the training diverges.
        RunError: there is no such run or candidate, its weights were not kept.
        DiskError: the disk refuses a file.
        SeNasError: data, device or backbone do not fit, as for a search.
        KeyboardInterrupt: stopped cleanly by Ctrl-C; the same call goes on.
    """
    progress = progress_of(progress)
    out = Path(out)
    formats = [*([format] if isinstance(format, str) else format), *(["standalone"] if standalone else [])]
    check_request(out, formats, force)
    folder = run.path if isinstance(run, Run) else Path(run)
    report = ParetoReport.from_run(folder)
    chosen = pick_from(report, pick)
    given = {
        "data": data,
        "val_data": val_data,
        "test_data": test_data,
        "recipe": recipe,
        "batch_size": batch_size,
        "input_size": input_size,
        "epochs": epochs,
        "strict": strict or None,
        "seed": seed,
        "device": device,
        "log": log,
    }
    given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v is not None}
    job = prepare(RunFolder.open(folder), report, chosen, given, from_weights)
    progress.message(f"picked trial {chosen.candidate.number}: {chosen.reason}")
    progress.message(job.describe())
    for text in (*(f"left out {line}" for line in job.data.left_out()), *job.data.remarks):
        progress.message(text)
    with _partial(Path(f"{out}{PARTIAL}"), job) as partial:
        study, row = _logged_as(job, report, chosen, folder, partial, out.name)
        with logged_training(job.config.log or (), study, row, progress) as logged:
            found, weights = _trained(job, partial, progress, logged, study.folder)
        exported = export_model(
            job.architecture,
            load_sealed(weights),
            out,
            metadata=_metadata(job, report, chosen, found),
            formats=formats,
            force=force,
        )
    shutil.rmtree(partial, ignore_errors=True)
    return exported


@contextlib.contextmanager
def _partial(folder: Path, job: Job) -> Iterator[Path]:
    """The folder of an unfinished retraining, new or gone on with, held by this process."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "retrain.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"another se-nas process is working on {folder}; wait for it or stop it.") from None
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        settings = job.settings()
        if (folder / SETTINGS).is_file():
            before = read_json(folder / SETTINGS)
            if not isinstance(before, Mapping):
                raise RunError(f"{folder / SETTINGS} is damaged: it must be a JSON object.")
            differing = [name for name in settings if before.get(name) != settings[name]]
            if differing:
                raise ConfigError(
                    f"{folder} holds an unfinished retraining that differs in: {', '.join(differing)}. Give the"
                    " same options to continue it, choose another --out, or delete that folder."
                )
        else:
            begun = datetime.now(UTC).isoformat(timespec="milliseconds")
            write_json(folder / SETTINGS, {**settings, BEGUN: begun})
        yield folder
    finally:
        lock.release()


def _logged_as(
    job: Job, report: ParetoReport, chosen: Pick, run: Path, partial: Path, name: str
) -> tuple[StudyFacts, dict[str, Any]]:
    """The group that loggers put the training in, and what they know of it before it begins."""
    settings = read_json(partial / SETTINGS)
    facts = {
        "run": job.run,
        "backbone": report.manifest.backbone,
        "data": job.data.name,
        "start": job.origin,
        "seed": job.config.seed,
        "se_nas_version": se_nas.__version__,
    }
    study = StudyFacts(
        name=name,
        identity=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12],
        folder=run / LOGS / RETRAINED / name,
        facts=facts,
    )
    architecture, seed = job.architecture, job.config.seed
    task = Task(number=chosen.candidate.number, architecture=architecture, seed=seed, phase=RETRAINED)
    row = {
        **task.row,
        "seed": seed,
        "epochs_planned": job.recipe.epochs,
        "position": architecture.position,
        "widths": list(architecture.widths),
    }
    return study, row


def _trained(
    job: Job, partial: Path, progress: Progress, logged: LoggedTraining, logs: Path
) -> tuple[dict[str, Any], Path]:
    """Trains, or goes on; returns what the card's row has of it, and the file of the weights."""
    model = job.model()
    began, done = time.monotonic(), 0

    def on_epoch(epoch: int, metrics: Mapping[str, Any]) -> bool:
        nonlocal done
        done += 1
        logged.epoch(context.curve)
        left = (time.monotonic() - began) / done * (job.recipe.epochs - epoch)
        progress.message(
            f"epoch {epoch} of {job.recipe.epochs}: {metrics['accuracy']:.2f} %, loss {metrics['loss']:.4f};"
            f" about {left / 60:.1f} min left"
        )
        return True

    with Interrupts(progress.message) as interrupts:
        context = Context(
            data=job.data,
            recipe=job.recipe,
            runtime=job.runtime,
            seed=job.config.seed,
            checkpoint_dir=partial,
            name=job.architecture.key,
            on_epoch=on_epoch,
            stop=lambda: interrupts.requested,
            loggers=make_loggers(job.config.log, logs),
        )
        weights = checkpoint_path(partial, job.architecture.key, job.config.seed)
        if weights.is_file():
            # Killed between the last epoch and the end of the export.
            model.load_state_dict(load_sealed(weights))
            metrics: Metrics = evaluate(job.runtime.place(model), context)
            found = metrics.to_dict()
        else:
            result = train(model, context)
            if result.state == "diverged":
                shutil.rmtree(partial, ignore_errors=True)
                raise ConfigError(
                    f"the training diverged with lr {job.recipe.lr:g}, and again with a tenth of it; choose"
                    " another recipe."
                )
            if result.state != "complete":
                progress.message("stopped; the same command continues from the last epoch")
                assert interrupts.number is not None
                raise Stopped(interrupts.number)
            if result.skipped and job.config.strict:
                raise DataError(
                    f"image {result.skipped[0]!r} {UNREADABLE}, which showed only when it was decoded."
                )
            if result.skipped:
                count = counted(len(result.skipped), "image")
                progress.message(f"left out {count} ({UNREADABLE}): {first_of(result.skipped)}")
            found = {name: getattr(result, name) for name in ("accuracy", "top5", "loss", "ece")}
        if job.data.test is not None:
            found["test_accuracy"] = evaluate(model, context, "test").accuracy
        logged.end(found | _exact_costs(job))
    return found, weights


def _metadata(job: Job, report: ParetoReport, chosen: Pick, found: Mapping[str, Any]) -> dict[str, Any]:
    manifest, candidate, data = report.manifest, chosen.candidate, job.data
    exact = _exact_costs(job)
    costs = {
        name: CostReading(value=exact[objective.column])
        for name, objective in COSTS.items()
        if objective.exact
    }
    if (data.input_size, data.num_classes) == (manifest.input_size, manifest.data.num_classes):
        # The same network, so what was measured in the run holds for it.
        costs |= {name: reading for name, reading in candidate.costs.items() if name not in costs}
    row = TrialRow(
        number=candidate.number,
        key=candidate.key,
        widths=candidate.widths,
        phase=RETRAINED,
        state="complete",
        seed=job.config.seed,
        epochs=job.recipe.epochs,
        costs=costs,
        **{name: found[name] for name in _FOUND if name in found},
    )
    return {
        "num_classes": data.num_classes,
        "input_size": list(data.input_size),
        "mean": list(data.mean),
        "std": list(data.std),
        "class_names": list(data.class_names),
        "name": f"{manifest.backbone} with SE, from {report.name}, retrained",
        "reason": chosen.reason,
        "run": report.name,
        "manifest": manifest.updated(
            data=data_facts(data), start=start(job.origin), recipe=job.recipe.to_dict()
        ),
        "row": row,
        "retrained": f"Retrained from {job.origin}, one seed ({job.config.seed})."
        f" {_in_the_search(candidate, manifest)}",
    }


def _exact_costs(job: Job) -> dict[str, Any]:
    """Column → cost, of those that are counted."""
    data = job.data
    cost = measure_cost(job.architecture, input_size=data.input_size, num_classes=data.num_classes)
    return {
        objective.column: getattr(cost, objective.column) for objective in COSTS.values() if objective.exact
    }


def _in_the_search(candidate: Candidate, manifest: Manifest) -> str:
    epochs = max(reading.epochs_planned for reading in candidate.counted or candidate.readings)
    if candidate.accuracy is None:
        return "The search has no accuracy for it."
    return (
        f"In the run that found it, {candidate.accuracy:.2f} % after {epochs} epoch{'' if epochs == 1 else 's'} on"
        f" {manifest.data.name}."
    )
