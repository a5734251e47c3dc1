"""Part of ``benchmarks/gpu.py``: a whole search, and where its time goes."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest import mock

from gpu_training import Case
from results import Results

from se_nas.data import ImageData
from se_nas.study import SearchConfig
from se_nas.study.phases.search import Search
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress
from se_nas.study.session import start
from se_nas.training.evaluation import Evaluation
from se_nas.training.session import Training


class _Watch(Progress):
    """Notes when epochs end, and asks for an end, as Ctrl-C does, once the time is up."""

    def __init__(self, left: Callable[[], float]) -> None:
        self.epochs: list[float] = []
        self._left, self._asked = left, False

    def message(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def epoch(self, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        self.epochs.append(time.perf_counter())
        if self._left() < 0 and not self._asked:
            self._asked = True
            os.kill(os.getpid(), signal.SIGINT)


def search(
    results: Results, device: str, data: ImageData | str, case: Case, epochs: int, trials: int
) -> None:
    """Trainings an hour, and the share of the time that is neither training nor evaluation.

    ``trainings_per_hour`` counts epochs from the moment every place has ended one, so that neither preparing places
    nor a pack that runs empty at the end counts; ``with_start`` counts from the search's beginning. What the host does
    while the device works off its queue counts as outside training, so the share is an upper bound for the device.

    Args:
        data: what is trained on: a name as in ``se-nas search --data``, or images that take the place of the digits.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        config = SearchConfig(
            backbone=case.backbone,
            data=data if isinstance(data, str) else "digits",
            input_size=case.side,
            batch_size=case.batch,
            objectives="accuracy,macs",
            device=device,
            epochs=epochs,
            trials=trials,
            final_seeds=0,
            runs=folder,
        )
        watch, totals = _Watch(results.left), {"advance": 0.0, "evaluation": 0.0, "whole": 0.0}
        with ExitStack() as stack:
            for owner, method, name in (
                (Training, "advance", "advance"),
                (Evaluation, "begin", "evaluation"),
                (Evaluation, "end", "evaluation"),
                (Search, "run", "whole"),
            ):
                timed = _timed(getattr(owner, method), name, totals)
                stack.enter_context(mock.patch.object(owner, method, timed))
            if isinstance(data, ImageData):
                stack.enter_context(mock.patch("se_nas.study.plan.load_images", return_value=data))
            plan = resolve(config, watch)
            prepared = time.perf_counter() - began
            totals.update(dict.fromkeys(totals, 0.0))
            began = time.perf_counter()
            start(plan, watch)
    if not watch.epochs:
        raise RuntimeError(f"no epoch ended in {totals['whole']:.0f} s")
    ended, places, whole = watch.epochs, plan.packing.at_a_time, totals["whole"]
    rate = (len(ended) - places) / (ended[-1] - ended[places - 1]) if len(ended) > places else 0.0
    results.add(
        **case.to_dict(),
        data=plan.data.name,
        training_images=len(plan.data.train),
        validation_images=len(plan.data.val),
        epochs=epochs,
        packing=plan.packing.reason,
        compile=plan.compilation.reason,
        places=places,
        epochs_ended=len(ended),
        trainings_per_hour=3600 * rate / epochs,
        with_start=3600 * len(ended) / (ended[-1] - began) / epochs,
        preparation=prepared,
        seconds=whole,
        outside_training=1 - totals["advance"] / whole,
        evaluation=totals["evaluation"] / whole,
    )


def _timed(method: Callable[..., Any], name: str, totals: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **keywords)
        finally:
            totals[name] += time.perf_counter() - began

    return timed
