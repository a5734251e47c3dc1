"""Workers that share one study in a database: the first makes it with all its decisions, the others join.

No worker is special: any may come or go at any time, and the last one closes the run.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import se_nas
from se_nas.device import resolve_devices
from se_nas.errors import RunError
from se_nas.run import CONFIG, MANIFEST, Manifest, RunFolder, write_json
from se_nas.study.checking import ENDED
from se_nas.study.config import SearchConfig
from se_nas.study.database_errors import NoStudyError, UnavailableError
from se_nas.study.patience import Patience
from se_nas.study.plan import Plan
from se_nas.study.provenance import versions
from se_nas.study.run_storage import directions_of, quiet_optuna
from se_nas.study.server import CLOCK, SharedDatabase
from se_nas.study.server_access import check_writable
from se_nas.study.shared_storage import SharedStore
from se_nas.study.shared_trials import SharedTrials

_CONFIG, _MANIFEST = "se_nas:config", "se_nas:manifest"
"""Attributes of the study."""
_MUST_EQUAL = ("torch", "timm", "optuna")
"""Libraries whose versions change what a reading is, or what is stored. Builds for other devices may differ."""
_LOOK_SECONDS = 5.0


def connect(
    config: SearchConfig,
    folder: RunFolder,
    *,
    create: bool = False,
    patience: Patience | None = None,
) -> SharedStore:
    """The shared study of a configuration.

    Args:
        config: with ``storage`` and ``study``.
        folder: of the run, for tables.
        create: whether an empty study is made if there is none.
        patience: with a database that has answered before; without, one that does not answer is an error.
    """
    storage, study = config.storage, config.study
    assert storage is not None
    assert study is not None
    directions = directions_of(config.objectives) if create else None

    def reach() -> SharedDatabase:
        return SharedDatabase.connect(storage, study, directions)

    with quiet_optuna():
        if patience is None:
            return SharedStore(folder, SharedTrials(reach()))
        database = patience.until_done(reach)
        database.patience = patience
        return SharedStore(folder, SharedTrials(database))


def create(
    plan: Plan, manifest: Manifest, prepare: Callable[[SharedStore], None], patience: Patience
) -> None:
    """Make the study of a plan, all or nothing.

    Args:
        plan: the resolved search.
        manifest: of the run that begins.
        prepare: stores what is there from the beginning: queued baselines and readings of another run.
        patience: with the database.

    Raises:
        RunError: there is such a study, or the database cannot be used.
    """
    config, begun = plan.config, manifest.to_json()

    def begin() -> None:
        stored = store.attributes.get(_MANIFEST)
        if stored == begun:
            # All of it is there, and the answer was lost.
            return
        if stored is not None:
            raise RunError(_exists(config))
        store.name_objectives(config.objectives)
        store.set_attributes(
            **{
                _CONFIG: config.model_dump(mode="json"),
                _MANIFEST: begun,
                CLOCK: [0.0, 0.0],
            }
        )
        prepare(store)

    with closing(connect(config, RunFolder(plan.path), create=True, patience=patience)) as store:
        store.turn(begin)


def check_free(config: SearchConfig) -> None:
    """Refuse to search what is being searched, before anything else is done.

    Raises:
        RunError: there is such a study, or the database cannot be used.
    """
    assert config.storage is not None
    assert config.study is not None
    if _read(config.storage, config.study) is not None:
        raise RunError(_exists(config))
    check_writable(config.storage)


def read(
    storage: str,
    study: str,
    *,
    writes: bool = False,
    wait: float = 0.0,
    say: Callable[[str], object] = lambda text: None,
) -> tuple[dict[str, Any], Manifest]:
    """Configuration and manifest of a study.

    Args:
        storage: the address of the database.
        study: the study's name.
        writes: whether it is refused if it may only be read.
        wait: seconds to wait for whoever makes it, and for a server that does not answer.
        say: is given a line if the server does not answer.

    Raises:
        RunError: there is none, or the database cannot be used.
    """
    patience, until = Patience(say), time.monotonic() + wait
    while True:
        try:
            found = _read(storage, study)
            if writes and found is not None:
                check_writable(storage)
        except UnavailableError as error:
            if time.monotonic() >= until:
                raise
            patience.wait(error)
            continue
        patience.answered()
        if found is not None:
            return found[_CONFIG], Manifest.from_json(found[_MANIFEST], f"study {study!r} on {storage}")
        if time.monotonic() >= until:
            raise RunError(
                f"{storage} has no study {study!r}; begin it with se-nas search and these options."
            )
        time.sleep(min(_LOOK_SECONDS, wait))


def check_versions(manifest: Manifest) -> None:
    """Refuse to take part with another version of what makes a reading.

    Raises:
        RunError: with every version that differs.
    """
    here = {"se-nas": se_nas.__version__, **versions()}
    there = {"se-nas": manifest.se_nas_version, **manifest.versions}
    differing = [
        f"{name} {there.get(name)} against {here.get(name)} here"
        for name in ("se-nas", *_MUST_EQUAL)
        if _public(there.get(name)) != _public(here.get(name))
    ]
    if differing:
        raise RunError(f"study {manifest.name!r} uses other versions: {'; '.join(differing)}.")


def check_device(manifest: Manifest, device: str) -> None:
    """Refuse to train on another kind of device than the study does.

    Raises:
        RunError: it is of another kind.
        DeviceError: there is no such device.
    """
    kind = resolve_devices(device)[0].type
    if kind != manifest.device.type:
        raise RunError(
            f"study {manifest.name!r} trains on {manifest.device.type}, but this worker would train on {kind};"
            " their readings cannot be compared."
        )


def is_finished(storage: str, study: str) -> bool:
    """Whether a study was begun and is closed.

    Raises:
        RunError: the database cannot be used.
    """
    found = _read(storage, study)
    return found is not None and found[_MANIFEST].get("status") == "finished"


def run_folder(path: Path, config: SearchConfig, manifest: Manifest) -> RunFolder:
    """The folder in which a worker keeps weights and report: one that workers share, or its own.

    Raises:
        RunError: it belongs to another run, or cannot be written.
    """
    folder = RunFolder(path)
    if (path / MANIFEST).is_file():
        folder = RunFolder.open(path)
        if (folder.config.get("study"), folder.manifest.created) != (config.study, manifest.created):
            raise RunError(f"{path} belongs to another run; choose another folder with --runs.")
        return folder
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the run folder {path} cannot be written: {error.strerror or error}.") from error
    write_json(path / CONFIG, config.model_dump(mode="json"))
    folder.write_manifest(manifest)
    return folder


def change_limits(store: SharedStore, limits: Mapping[str, Any]) -> None:
    """Give a study that nobody works on new limits, of the fields ``budget``, ``trials``, ``stop_when_settled``.

    Raises:
        RunError: a worker is at work, for whom the old ones hold.
    """

    def change() -> None:
        if store.others_at_work():
            raise RunError(
                "workers are running on this study; wait for them or stop them before you change its limits."
            )
        changed = {**store.attributes[_CONFIG], **limits}
        opened = {**store.attributes[_MANIFEST], "status": "running", "stop_reason": None}
        store.set_attributes(**{_CONFIG: changed, _MANIFEST: opened, ENDED: None})

    store.turn(change)


def close_run(store: SharedStore, manifest: Manifest) -> None:
    """Store how the run ended, unless others still train for it: the last one does.

    A worker that comes later changes nothing, and its folder says what the study says.
    """

    def close() -> dict[str, Any] | None:
        stored: dict[str, Any] = store.attributes[_MANIFEST]
        if stored["status"] == "finished":
            return stored
        if not store.others_at_work():
            store.set_attributes(**{_MANIFEST: manifest.to_json()})
        return None

    stored = store.turn(close)
    if stored is not None:
        store.folder.write_manifest(Manifest.from_json(stored, f"study {manifest.name!r}"))


def fetch(storage: str, study: str, path: Path) -> RunFolder:
    """Write the study as it is now as a run folder, without weights.

    Args:
        storage: the address of the database.
        study: the study's name.
        path: a folder in which one with the run's name is made.

    Raises:
        RunError: there is no such study, or the database or the folder cannot be used.
    """
    values, manifest = read(storage, study)
    config = SearchConfig(**values)
    folder = RunFolder.create(path / manifest.name, values, manifest)
    with closing(connect(config, folder)) as store:
        store.write_table()
    return folder


def refresh(storage: str, study: str, path: Path) -> RunFolder:
    """Bring the folder in which a worker keeps its weights up to date, whether it is still at work or not.

    Args:
        storage: the address of the database.
        study: the study's name.
        path: the folder that holds the worker's run folder.

    Raises:
        RunError: there is no such study or folder, the folder belongs to another run, or one of them cannot be used.
    """
    values, manifest = read(storage, study)
    place = path / manifest.name
    if not (place / MANIFEST).is_file():
        raise RunError(
            f"the weights of study {study!r} are with the workers that trained them, and there is no {place} here;"
            " use --runs to say where a worker keeps its run folder."
        )
    config = SearchConfig(**values)
    folder = run_folder(place, config, manifest)
    with closing(connect(config, folder)) as store:
        store.write_table()
    folder.write_manifest(manifest)
    return folder


def _read(storage: str, study: str) -> dict[str, Any] | None:
    """The attributes of a study that was begun; None if there is none."""
    try:
        database = SharedDatabase.connect(storage, study)
    except NoStudyError:
        return None
    with closing(database):
        found, _ = database.attributes()
    return found if _MANIFEST in found else None


def _exists(config: SearchConfig) -> str:
    return (
        f"study {config.study!r} already exists. Choose another --study, or take part in it: "
        f" se-nas worker --storage {config.storage} --study {shlex.quote(str(config.study))}"
    )


def _public(version: str | None) -> str | None:
    """Without what names a build, such as +cu128."""
    return None if version is None else version.partition("+")[0]
