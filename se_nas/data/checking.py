"""Every image is checked once before anything is trained: decoded if it stays in memory, else by its file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

from se_nas.data.classes import FileSamples
from se_nas.data.image_data import Images, Samples
from se_nas.data.listing import LeftOut
from se_nas.data.pixels import image_warnings, resized
from se_nas.errors import DataError

SMALL_SIDE = 96
"""Images up to this side are kept in memory; larger ones lose too much if they are not cropped from the
original.
"""
MAX_MEMORY = 4 * 1024**3
"""Bytes of uint8 pixels that are kept in memory."""
UNREADABLE = "cannot be decoded"
THREADS = 8
"""Reading waits for the disk, and Pillow decodes without Python's lock."""
_CHUNK = 16
_WORDS = {"train": "training", "val": "validation", "test": "test"}

Progress = Callable[[int, int], None]
"""Called with the number of images checked so far and of all."""
Result = TypeVar("Result")


class Checker:
    """Reads the splits of a data set one after another; collects the fingerprint and the images left out."""

    def __init__(self, size: tuple[int, int], *, strict: bool, total: int, progress: Progress | None) -> None:
        """Nothing is read yet.

        Args:
            size: (H, W) of what a model gets.
            strict: make a damaged image an error.
            total: images of all splits.
            progress: notified now and then.
        """
        self.size = size
        self.skipped: list[LeftOut] = []
        self._strict, self._total, self._progress = strict, total, progress
        self._done = 0
        self._digest = hashlib.sha256()

    def read(self, samples: Samples, *, compare: bool) -> tuple[Images, dict[bytes, str]]:
        """The images of one split that can be decoded, and (``compare``) the name of an image by its content.

        Raises:
            DataError: an image is damaged (``strict``), or all images of a class are.
        """
        self._digest.update(repr(samples.class_names).encode())
        count, (height, width) = len(samples.labels), self.size
        in_memory = max(self.size) <= SMALL_SIDE and 3 * count * height * width <= MAX_MEMORY
        pixels = torch.empty((count, 3, height, width), dtype=torch.uint8) if in_memory else None

        def check(index: int) -> tuple[bytes, bytes] | Exception:
            try:
                if pixels is None:
                    return samples.payload(index)
                image = samples.read(index)
            except (OSError, SyntaxError, ValueError) as error:
                return error
            pixels[index] = torch.from_numpy(np.array(resized(image, self.size))).permute(2, 0, 1)
            content = image.tobytes()
            return content, content

        place = samples.place if isinstance(samples, FileSamples) else ""
        kept: list[int] = []
        contents: dict[bytes, str] = {}
        with image_warnings():
            for index, found in enumerate(_results(samples, check)):
                name = samples.name(index)
                if isinstance(found, Exception):
                    self._skip(name, place, found)
                else:
                    self._add(name, samples.labels[index], found[0])
                    if compare:
                        contents[hashlib.blake2b(found[1], digest_size=16).digest()] = place + name
                    kept.append(index)
                self._report()
        _check_classes_left(samples, kept, self.skipped)
        labels = torch.from_numpy(samples.labels[kept])
        if pixels is None:
            return Images(labels=labels, samples=samples, indices=np.asarray(kept)), contents
        return Images(labels=labels, pixels=pixels[kept] if len(kept) < count else pixels), contents

    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def _add(self, name: str, label: int, content: bytes) -> None:
        self._digest.update(f"{name}\0{label}\0{len(content)}\0".encode())
        self._digest.update(content)

    def _skip(self, name: str, place: str, error: Exception) -> None:
        if self._strict:
            raise DataError(f"image {place + name!r} {UNREADABLE}: {error}.") from error
        self.skipped.append(LeftOut(place + name, f"{UNREADABLE}: {error}"))
        self._digest.update(f"{name}\0skipped\0".encode())

    def _report(self) -> None:
        self._done += 1
        if self._progress is not None and (self._done % _CHUNK == 0 or self._done == self._total):
            self._progress(self._done, self._total)


def unread(samples: Samples) -> Images:
    """The images of one split as they are listed."""
    labels = torch.from_numpy(samples.labels)
    return Images(labels=labels, samples=samples, indices=np.arange(len(labels)))


def native_size(samples: Samples, default: tuple[int, int], looked_at: int = 1000) -> tuple[int, int]:
    """(H, W) of the images if they are of one small size, else the default; a spread of them is looked at."""
    sizes = set()
    count = len(samples.labels)
    with image_warnings():
        for index in np.unique(np.linspace(0, count - 1, min(count, looked_at)).round().astype(int)):
            try:
                sizes.add(_size(samples, int(index)))
            except (OSError, SyntaxError, ValueError):
                continue
            if len(sizes) > 1 or max(max(size) for size in sizes) > SMALL_SIDE:
                return default
    return sizes.pop() if sizes else default


def _size(samples: Samples, index: int) -> tuple[int, int]:
    if isinstance(samples, FileSamples):
        return samples.size(index)
    image: Any = samples.read(index)
    return image.height, image.width


def _results(samples: Samples, work: Callable[[int], Result]) -> Iterator[Result]:
    """``work(index)`` for every image in order; in threads if the samples allow it."""
    count = len(samples.labels)
    if not isinstance(samples, FileSamples):
        yield from map(work, range(count))
        return
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        # Decoded images wait for the fingerprint, which goes in order: not too many of them.
        for first in range(0, len(chunks), THREADS):
            for results in pool.map(lambda chunk: list(map(work, chunk)), chunks[first : first + THREADS]):
                yield from results


def compare_splits(contents: Mapping[str, Mapping[bytes, str]]) -> tuple[str, ...]:
    """Sentences about images that are in two splits, by their content."""
    remarks = []
    for split, other in (("val", "train"), ("test", "train"), ("test", "val")):
        mine, others = contents.get(split, {}), contents.get(other, {})
        shared = [content for content in mine if content in others]
        if shared:
            count = f"all {len(mine)}" if len(shared) == len(mine) else f"{len(shared)} of the {len(mine)}"
            remarks.append(
                f"{count} {_WORDS[split]} images have the same content as {_WORDS[other]} images, so accuracy on"
                f" them is not accuracy on new images; {mine[shared[0]]!r} is {others[shared[0]]!r}."
            )
    return tuple(remarks)


def _check_classes_left(samples: Samples, kept: list[int], skipped: list[LeftOut]) -> None:
    reasons = dict(skipped)
    place = samples.place if isinstance(samples, FileSamples) else ""
    left = set(np.unique(samples.labels[kept]).tolist())
    lost = [int(label) for label in np.unique(samples.labels) if int(label) not in left]
    if lost:
        name = place + samples.name(int(np.flatnonzero(samples.labels == lost[0])[0]))
        raise DataError(
            f"no image of class {samples.class_names[lost[0]]!r} could be decoded; the first, {name!r},"
            f" {reasons[name]}."
        )
