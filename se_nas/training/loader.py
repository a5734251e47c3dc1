"""Batches of images that are decoded on each use, by worker processes that outlive a candidate.

Transforms, collation and prefetcher are timm's; the sampler and the seeding are not. Draws are keyed by (seed,
epoch, image), so they depend neither on the number of workers nor on which of them decodes an image.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from timm.data import create_transform
from timm.data.loader import PrefetchLoader, fast_collate
from torch.utils.data import DataLoader, Dataset, Sampler

from se_nas.data import ImageData, Images
from se_nas.data.pixels import image_warnings
from se_nas.errors import DataError
from se_nas.training.augment import Augment
from se_nas.training.batches import Batch, effective_batch, eval_batch, formatted, moved
from se_nas.training.draws import Draws, Inputs
from se_nas.training.randomness import AUGMENT, ORDER, generator, seeded
from se_nas.training.recipe import Recipe
from se_nas.training.runtime import Runtime

Key = tuple[int, int, int]
"""Seed, epoch and index in the split."""
MAX_CRASHES = 3
"""Crashes of workers in one epoch after which the training is given up."""
MAX_DAMAGED = 10
"""Damaged images in a row after which the training is given up."""
NO_LABEL = -1

_CRASH = re.compile(r"DataLoader worker .*(exited unexpectedly|is killed by signal)")
_loaders: weakref.WeakKeyDictionary[ImageData, dict[tuple[Any, ...], _Loader]] = weakref.WeakKeyDictionary()


class LoaderBatches:
    """Training batches from timm's readers; an incomplete last batch is dropped.

    Inputs are ``pixels`` (B, 3, H, W), ``labels`` (B,) and the draws of ``Augment.finish``; workers draw the
    rest.
    """

    def __init__(self, data: ImageData, recipe: Recipe, runtime: Runtime, seed: int) -> None:
        self._data, self._recipe, self._runtime, self._seed = data, recipe, runtime, seed
        self.augment = Augment(recipe, data, runtime.device)
        self.batch_size = effective_batch(recipe, data.train)
        self.steps = len(data.train) // self.batch_size

    @property
    def device(self) -> str:
        """Where batches are made."""
        return self._runtime.device

    def inputs(self, epoch: int, start: int = 0) -> Iterator[Inputs]:
        for step, batch in enumerate(self._loader().batches(self._keys(epoch, start)), start):
            yield self._inputs(batch, epoch, step)

    def decoded(self, epoch: int, step: int) -> Inputs:
        """The inputs of one batch, decoded in this process; the workers are not disturbed."""
        dataset = self._loader().dataset
        [keys] = self._keys(epoch, step)[:1]
        pixels, labels = fast_collate([dataset[key] for key in keys])
        return self._inputs((pixels, labels), epoch, step)

    def _keys(self, epoch: int, start: int) -> list[list[Key]]:
        """Of each batch from ``start`` on, the keys of its images."""
        order = generator(ORDER, self._seed, epoch).permutation(len(self._data.train))
        return [
            [(self._seed, epoch, int(index)) for index in order[step * self.batch_size :][: self.batch_size]]
            for step in range(start, self.steps)
        ]

    def _loader(self) -> _Loader:
        transform = _train_transform(self._data, self._recipe, self.augment.draws)
        return _loader(self._data, "train", self._runtime, transform, self._recipe)

    def _inputs(self, batch: Batch, epoch: int, step: int) -> Inputs:
        pixels, labels = batch
        draws = self.augment.draws.finish(len(pixels), self._seed, epoch, step)
        return {"pixels": pixels, "labels": labels} | draws

    def batch(self, inputs: Inputs) -> Batch:
        images, targets = self.augment.finish(inputs["pixels"].float(), inputs["labels"], inputs)
        return formatted(images, self._runtime), targets

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for inputs in self.inputs(epoch, start):
            yield self.batch(moved(inputs, self._runtime.device))

    def skipped(self) -> tuple[str, ...]:
        return damaged_names(self._data, "train")


def loader_eval_batches(data: ImageData, split: str, augment: Augment, runtime: Runtime) -> Iterator[Batch]:
    """Images in their order at the centre crop; those that cannot be decoded are left out."""
    count, size = len(getattr(data, split)), eval_batch(data, runtime)
    keys = [
        [(0, 0, index) for index in range(start, min(start + size, count))] for start in range(0, count, size)
    ]
    transform = create_transform(
        data.input_size, is_training=False, interpolation="bicubic", use_prefetcher=True
    )
    for pixels, labels in _loader(data, split, runtime, transform, None).batches(keys):
        whole = labels != NO_LABEL
        yield formatted(augment.normalise(pixels[whole]), runtime), labels[whole]


def damaged_names(data: ImageData, split: str) -> tuple[str, ...]:
    """Names of the images of a split that no candidate could decode so far."""
    images: Images = getattr(data, split)
    found: set[str] = set()
    for (name, *_), loader in _loaders.get(data, {}).items():
        if name == split and images.samples is not None and images.indices is not None:
            positions = loader.dataset.damaged.nonzero()[:, 0].tolist()
            found |= {images.samples.name(int(images.indices[position])) for position in positions}
    return tuple(sorted(found))


class _Decoded(Dataset[tuple[Any, int]]):
    """Images by key, decoded and transformed with the draws of their key.

    A damaged image is marked in shared memory. Training takes the next whole one instead, as timm does, so
    that batches keep their size; validation gives it ``NO_LABEL``.
    """

    def __init__(self, images: Images, transform: Any, size: tuple[int, int, int], training: bool) -> None:
        assert images.samples is not None
        assert images.indices is not None
        self._samples, self._indices, self._labels = images.samples, images.indices, images.labels
        self._transform, self._size, self._training = transform, size, training
        self.damaged = torch.zeros(len(images), dtype=torch.bool).share_memory_()

    def __getitem__(self, key: Key) -> tuple[Any, int]:
        seed, epoch, first = key
        for offset in range(MAX_DAMAGED):
            position = (first + offset) % len(self._labels)
            if not self.damaged[position]:
                try:
                    with image_warnings():
                        image = self._samples.read(int(self._indices[position]))
                except (OSError, SyntaxError, ValueError):
                    self.damaged[position] = True
                else:
                    with seeded(AUGMENT, seed, epoch, first):
                        return self._transform(image), int(self._labels[position])
            if not self._training:
                return torch.zeros(self._size, dtype=torch.uint8), NO_LABEL
        raise DataError(
            f"{MAX_DAMAGED} images in a row cannot be decoded, the first of them"
            f" {self._samples.name(int(self._indices[first]))!r}."
        )


class _Order(Sampler[list[Key]]):
    """The batches that the next pass through the loader yields."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class _Loader:
    """A data loader that is started again when one of its workers crashes."""

    def __init__(self, dataset: _Decoded, runtime: Runtime) -> None:
        self.dataset, self._runtime = dataset, runtime
        self._order = _Order()
        self._loader: Any = None

    def batches(self, keys: list[list[Key]]) -> Iterator[Batch]:
        done = crashes = 0
        while done < len(keys):
            self._order.keys = keys[done:]
            try:
                for batch in self._start():
                    yield batch
                    done += 1
            except (RuntimeError, ConnectionError, EOFError) as error:
                # A worker that dies while it hands a batch over breaks the connection instead.
                self._loader = None
                crashes += 1
                if isinstance(error, RuntimeError) and not _CRASH.search(str(error)):
                    raise
                if crashes > MAX_CRASHES:
                    raise DataError(
                        f"the processes that read images crashed {crashes} times in one epoch: {error}"
                    ) from error

    def _start(self) -> Any:
        if self._loader is None:
            cuda = self._runtime.device.startswith("cuda")
            loader = DataLoader(
                self.dataset,
                batch_sampler=self._order,
                num_workers=self._runtime.workers,
                collate_fn=fast_collate,
                pin_memory=cuda,
                persistent_workers=self._runtime.workers > 0,
            )
            # timm's prefetcher overlaps copies with computing; what it normalises with is the identity here,
            # because erasing and mixing draw by batch.
            self._loader = (
                PrefetchLoader(
                    loader, mean=(0.0,) * 3, std=(1 / 255,) * 3, device=torch.device(self._runtime.device)
                )
                if cuda
                else loader
            )
        return self._loader


def _loader(data: ImageData, split: str, runtime: Runtime, transform: Any, recipe: Recipe | None) -> _Loader:
    settings = None if recipe is None else (recipe.crop, recipe.crop_scale, recipe.hflip, recipe.auto_augment)
    loaders = _loaders.setdefault(data, {})
    key = (split, runtime.device, runtime.workers, settings)
    if key not in loaders:
        _, height, width = data.input_size
        dataset = _Decoded(getattr(data, split), transform, (3, height, width), training=recipe is not None)
        loaders[key] = _Loader(dataset, runtime)
    return loaders[key]


def _train_transform(data: ImageData, recipe: Recipe, draws: Draws) -> Any:
    """timm's training transform: "pad" becomes a random crop at a fixed aspect ratio."""
    return create_transform(
        data.input_size,
        is_training=True,
        train_crop_mode="rrc" if draws.crop == "random_resized" else "rkrc",
        scale=recipe.crop_scale if draws.crop == "random_resized" else None,
        hflip=draws.hflip,
        color_jitter=0.0,
        auto_augment=recipe.auto_augment,
        interpolation="bicubic",
        mean=data.mean,
        std=data.std,
        use_prefetcher=True,
    )
