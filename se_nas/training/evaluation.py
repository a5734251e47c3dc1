"""Validation: logits of all images of a split, chunk by chunk, and the metrics from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from se_nas.data import ImageData, Images
from se_nas.training.augment import Augment
from se_nas.training.batches import Batch, eval_batch, formatted, on_device
from se_nas.training.capture import CaptureError, capture
from se_nas.training.loader import loader_eval_batches
from se_nas.training.metrics import Metrics, score
from se_nas.training.runtime import Runtime


class Evaluation:
    """Evaluates one network on one split, as often as asked.

    With ``runtime.graphs`` and images in memory, a repeated evaluation captures its pass over a chunk of fixed size
    as a CUDA graph at the first call. The network's weights may change between calls, but not move.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageData,
        augment: Augment,
        runtime: Runtime,
        split: str = "val",
        *,
        repeated: bool = False,
    ) -> None:
        self._model, self._data, self._augment, self._runtime = model, data, augment, runtime
        self._split, self._repeated = split, repeated
        self._images: Images = getattr(data, split)
        self._chunk: _Chunk | None = None
        self._found: _Found | None = None

    def __call__(self) -> Metrics:
        """Metrics of the network as it is now, in the runtime's precision. It is left in evaluation mode."""
        self.begin()
        return self.end()

    @torch.inference_mode()
    def begin(self) -> None:
        """Launch the evaluation. On a GPU, with a captured pass, it does not wait for the device.

        The network must not change before ``end``, except by what is launched on the same stream.
        """
        self._model.eval()
        if self._repeated and self._images.pixels is not None and self._runtime.graphs:
            try:
                self._found = self._by_chunks()
                return
            except CaptureError as error:
                self._runtime.graphs, self._runtime.graphs_error = False, str(error)
        logits, labels = [], []
        for images, wanted in self._batches():
            logits.append(self._logits(images).cpu())
            labels.append(wanted.cpu())
        self._found = _Found(torch.cat(logits), torch.cat(labels))

    @property
    def ready(self) -> bool:
        """Whether ``end`` has nothing to wait for."""
        return self._found is None or self._found.ready is None or self._found.ready.query()

    @torch.inference_mode()
    def end(self) -> Metrics:
        """The metrics of what ``begin`` has launched, once the device is done with it."""
        found, self._found = self._found, None
        assert found is not None
        if found.ready is not None:
            found.ready.synchronize()
        return score(found.logits, found.labels, self._data.num_classes)

    def _by_chunks(self) -> _Found:
        size = eval_batch(self._data, self._runtime)
        if self._chunk is None or len(self._chunk.chosen) != size:
            self._chunk = _Chunk(self._pass, size, torch.device(self._runtime.device))
        logits = torch.cat(list(self._chunk.logits(len(self._images))))
        # To pinned memory; ``ready`` says when it is there.
        found = logits.to("cpu", non_blocking=True)
        ready = None
        if logits.is_cuda:
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(logits.device))
        return _Found(found, self._images.labels, ready)

    def _pass(self, chosen: torch.Tensor) -> torch.Tensor:
        pixels, _ = on_device(self._images, self._runtime.device)
        return self._logits(formatted(self._augment.normalise(pixels.index_select(0, chosen)), self._runtime))

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        with self._runtime.autocast(cache_enabled=not self._runtime.graphs):
            return self._model(images).float()

    def _batches(self) -> Iterator[Batch]:
        """Images in their order, without augmentation."""
        if self._images.pixels is None:
            yield from loader_eval_batches(self._data, self._split, self._augment, self._runtime)
            return
        size = eval_batch(self._data, self._runtime)
        for start in range(0, len(self._images), size):
            pixels = self._images.pixels[start : start + size].to(self._runtime.device)
            labels = self._images.labels[start : start + size]
            yield formatted(self._augment.normalise(pixels), self._runtime), labels


class _Found(NamedTuple):
    """Logits and labels on the CPU; with ``ready`` the logits are there once it has passed."""

    logits: torch.Tensor
    labels: torch.Tensor
    ready: torch.cuda.Event | None = None


class _Chunk:
    """A captured pass over ``size`` images, given by their indices."""

    def __init__(self, work: Callable[[torch.Tensor], torch.Tensor], size: int, device: torch.device) -> None:
        self.chosen = torch.zeros(size, dtype=torch.long, device=device)

        def run() -> None:
            self._logits = work(self.chosen)

        self._replay = capture(run, (), device)

    def logits(self, count: int) -> Iterator[torch.Tensor]:
        """Of ``count`` images in their order, by chunks; the last chunk is filled up with the last image."""
        size = len(self.chosen)
        for start in range(0, count, size):
            torch.arange(start, start + size, out=self.chosen).clamp_(max=count - 1)
            self._replay()
            yield self._logits[: count - start].clone()
