"""What commands that read results are given: run folders and saved reports, or studies in a database."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from se_nas.report import ParetoReport


def load_report(run: Path | None, storage: str | None, study: str | None) -> ParetoReport:
    """The report of a run folder, of a saved report, or of a study as its database knows it now."""
    from se_nas.report import ParetoReport

    address, name = _checked(run, storage, study)
    if run is not None:
        return ParetoReport.load(run)
    from se_nas.study.peers import fetch

    with tempfile.TemporaryDirectory(prefix="se-nas-") as scratch:
        # No command can name a folder that is deleted at once.
        return replace(ParetoReport.load(fetch(address, name, Path(scratch)).path), source=None)


def with_weights(run: Path | None, storage: str | None, study: str | None, runs: Path) -> Path:
    """A run folder, or a worker's folder of a study in ``runs``, brought up to date from the database."""
    address, name = _checked(run, storage, study)
    if run is not None:
        return run
    from se_nas.study.peers import refresh

    return refresh(address, name, runs).path


def _checked(run: Path | None, storage: str | None, study: str | None) -> tuple[str, str]:
    from se_nas.errors import ConfigError
    from se_nas.study.address import check_address, check_study

    if run is not None and storage is None and study is None:
        return "", ""
    if run is not None or storage is None or study is None:
        raise ConfigError("give either a run folder, or both --storage and --study.")
    return check_address(storage), check_study(study)
