"""What one action costs on one run folder, for `many_trials.py`: prints JSON.

    python benchmarks/run_action.py {resume,show,report} RUN

It is a program of its own because its memory is that of what it imports: `show` and `report` need neither PyTorch nor
Optuna.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

MODULES: Mapping[str, Sequence[str]] = {
    "resume": ("se_nas.study.session", "se_nas.cost.counting", "fvcore.nn", "optuna.samplers._random"),
    "show": ("se_nas.cli.results", "se_nas.cli.tables", "se_nas.report", "rich.table"),
    "report": (
        *("se_nas.cli.results", "se_nas.cli.tables", "se_nas.report", "se_nas.report.page", "jinja2"),
        *("matplotlib.figure", "matplotlib.font_manager", "matplotlib.backends.backend_agg"),
        *("matplotlib.backends.backend_svg", "matplotlib.backends.backend_pdf"),
    ),
}
"""What each action imports."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=MODULES)
    parser.add_argument("path", type=Path)
    options = parser.parse_args()
    for name in MODULES[options.action]:
        importlib.import_module(name)
    seconds = resumed(options.path) if options.action == "resume" else shown(options.action, options.path)
    print(json.dumps({"seconds": seconds, "gb": peak_memory() / 1e9}))


def peak_memory() -> int:
    """Bytes that this program had resident at most. `getrusage` would give the parent's, if it had more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def shown(action: str, path: Path) -> float:
    """Processor seconds of a command beyond its imports."""
    from se_nas.cli import results

    began = time.process_time()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        getattr(results, action)(path)
    return time.process_time() - began


def resumed(path: Path) -> float:
    """Processor seconds from the beginning of a resume to its first suggestion, beyond imports."""
    from se_nas.run import RunFolder
    from se_nas.study import SearchConfig
    from se_nas.study.plan import resolve
    from se_nas.study.storage import StudyStore
    from se_nas.study.suggestions import Suggestions

    folder = RunFolder.open(path)
    began = time.process_time()
    plan = resolve(SearchConfig(**folder.config), frozen=folder.manifest)
    store = StudyStore.create(folder, plan.config.objectives)
    Suggestions(plan, store).next()
    return time.process_time() - began


if __name__ == "__main__":
    main()
