"""Where a benchmark with a time limit leaves its results: in a file of JSON lines, as soon as they are known."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


class Results:
    """Rows of one part of a run.

    Args:
        path: the file that they are appended to.
        common: fields of every row, such as the name of the part.
        seconds: time that the part has.
    """

    def __init__(self, path: Path, common: Mapping[str, Any], seconds: float) -> None:
        self._path, self._common = path, dict(common)
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that the part still has."""
        return self._end - time.monotonic()

    def add(self, **values: Any) -> None:
        """Append a row, and print it."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self._common, **values}) + "\n")
        print("  " + ", ".join(f"{name} {_short(value)}" for name, value in values.items()), flush=True)

    def attempt(self, work: Callable[[], Mapping[str, Any]], *, needs: float = 0.0, **what: Any) -> None:
        """Add a row of ``what`` and the values that ``work`` returns; or with the ``error`` that kept it from it.

        Args:
            needs: seconds without which it is not begun.
        """
        if self.left() < needs:
            self.add(
                **what, error=f"not begun: {self.left():.0f} s were left, and it needs about {needs:.0f} s"
            )
            return
        began = time.monotonic()
        try:
            values = work()
        except Exception as error:  # one measurement must not end the others
            traceback.print_exc()
            # The traceback holds the work's variables, and so its memory on the device.
            error.__traceback__ = None
            lines = str(error).splitlines() or [""]
            self.add(**what, error=f"{type(error).__name__}: {lines[0]}")
        else:
            self.add(**what, **values, spent=round(time.monotonic() - began, 2))
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def of_run(path: Path, run: str) -> list[dict[str, Any]]:
    """The rows of one run."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["run"] == run]


def _short(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
