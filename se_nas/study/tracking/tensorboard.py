"""TensorBoard: one run in a sub-folder for each trial, with an entry in the table of hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from se_nas.errors import ConfigError
from se_nas.study.tracking.base import Row, StudyFacts, described, flat, labels, numbers, results, run_name


class TensorBoardRuns:
    """Event files in ``logs/tensorboard/trial-007`` of the run folder: ``tensorboard --logdir runs`` shows all runs."""

    def __init__(self, study: StudyFacts) -> None:
        self._folder = study.folder / "tensorboard"
        self._writers: dict[int, Any] = {}

    @staticmethod
    def check() -> None:
        _writer_class()

    def begin(self, row: Row) -> int:
        if row["number"] in self._writers:
            self._writers.pop(row["number"]).close()
        # What an earlier process wrote is hidden, since all of it is written again.
        writer = _writer_class()(str(self._folder / run_name(row)), purge_step=1)
        writer.add_text("architecture", str(row.get("description")), 1)
        self._writers[row["number"]] = writer
        return 0

    def epoch(self, row: Row, entry: Mapping[str, Any]) -> None:
        writer = self._writers[row["number"]]
        for name, value in numbers(entry).items():
            writer.add_scalar(name, value, entry["epoch"])
        writer.flush()

    def end(self, row: Row) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self._writers.pop(row["number"])
        final = {f"result/{name}": value for name, value in results(row).items()}
        for name, value in final.items():
            writer.add_scalar(name, value, max(1, row.get("epochs") or 1))
        about = flat(described(row)) | {"labels": " ".join(labels(row)), "state": row["state"]}
        # `SummaryWriter.add_hparams` would make a folder of its own, and by that another run.
        for summary in hparams(about, dict.fromkeys(final, 0)):
            writer.file_writer.add_summary(summary)
        writer.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "log is 'tensorboard', which is not installed: pip install 'se-nas[tensorboard]'."
        ) from error
    return SummaryWriter
