"""``load_data``: from a name to an ``ImageData``, with every mistake found before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from se_nas.data.image_data import ImageData, Images, Samples, class_list
from se_nas.data.sources import (
    NAMES,
    PREFIXES,
    ReaderSamples,
    find_splits,
    keeps_class_mirrored,
    open_source,
)
from se_nas.errors import ConfigError, DataError, blamed

SMALL_SIDE = 96
"""Images up to this side are kept in memory; larger ones lose too much when they are not cropped from the
original.
"""
MAX_MEMORY = 4 * 1024**3
"""Bytes of uint8 pixels that are kept in memory."""
DEFAULT_SIDE = 224
DIGITS_SIDE = 32
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_data(
    name: str = "digits",
    *,
    val_data: str | None = None,
    test_data: str | None = None,
    input_size: int | tuple[int, int] | tuple[int, int, int] | None = None,
    val_fraction: float = 0.2,
    test_fraction: float | None = None,
    split_seed: int = 0,
    strict: bool = False,
    root: str | None = None,
) -> ImageData:
    """Read a data set, split it and take its fingerprint.

    Args:
        name: "digits"; a folder or tar of class folders, or a folder of such named ``train``, ``val`` and
            ``test``; ``torch/NAME``, ``hfds/NAME`` or ``wds/FOLDER`` as timm's ``create_dataset`` knows them;
            or the name of an entry point of the group ``se_nas.data``.
        val_data: validation images, named likewise (``NAME:SPLIT`` picks a split of a prefixed name). None: a
            ``val`` beside ``train``, else a stratified share of the training images.
        test_data: test images, named likewise. They are for the final report and never for selection.
        input_size: side, (H, W) or (3, H, W) of what the model gets. None: 32 for digits, the images' own
            size where all are equal and at most 96 pixels, else 224.
        val_fraction, test_fraction: shares of each class that become validation and test images, in (0, 1).
        split_seed: seed of that choice. It is not the training seed, so that runs with different seeds can be
            compared.
        strict: make an image that cannot be decoded an error. Otherwise it is left out and named in
            ``skipped``.
        root: folder that prefixed names are stored in.

    Raises:
        DataError: the data is missing, empty, has one class, has an unreadable image (``strict``), or its
            validation images have other classes.
        ConfigError: a fraction or the input size makes no sense.
    """
    _check_fractions(val_fraction, test_fraction)
    size = _input_size(input_size)
    if name in NAMES.installed():
        return _from_plugin(
            name,
            val_data=val_data,
            test_data=test_data,
            input_size=input_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            strict=strict,
            root=root,
        )
    train_name, found_val, found_test = find_splits(name)
    val_data, test_data = val_data or found_val, test_data or found_test
    source = _open(train_name, root)
    _check_classes(name, source)
    val_source = _open_like(val_data, source, root) if val_data else None
    test_source = _open_like(test_data, source, root) if test_data else None

    reader = _Reader(strict=strict, size=size or _native_size(name, source))
    groups = [reader.read(samples) for samples in (source, val_source, test_source)]
    train, val, test = groups
    assert train is not None
    if val is None or (test is None and test_fraction):
        shares = (0.0 if val else val_fraction, 0.0 if test else (test_fraction or 0.0))
        parts = _stratified_split(train.labels.numpy(), source.class_names, shares, split_seed)
        whole = train
        train = _subset(whole, parts[0])
        val = val or _subset(whole, parts[1])
        test = test or (_subset(whole, parts[2]) if len(parts[2]) else None)
    for samples in (source, val_source, test_source):
        if isinstance(samples, ReaderSamples):
            samples.close()
    mean, std = _statistics(train)
    return ImageData(
        name=name,
        class_names=source.class_names,
        input_size=(3, *reader.size),
        fingerprint=reader.fingerprint(),
        skipped=tuple(reader.skipped),
        train=train,
        val=val,
        test=test,
        mean=mean,
        std=std,
        split_seed=split_seed,
        mirror=keeps_class_mirrored(name),
    )


class _Reader:
    """Decodes small images once, and collects the names that could not be and the fingerprint on the way."""

    def __init__(self, *, strict: bool, size: tuple[int, int]) -> None:
        self.strict, self.size = strict, size
        self.skipped: list[str] = []
        self._digest = hashlib.sha256()

    def read(self, samples: Samples | None) -> Images | None:
        if samples is None:
            return None
        self._digest.update(repr(samples.class_names).encode())
        count = len(samples.labels)
        if max(self.size) > SMALL_SIDE or 3 * count * self.size[0] * self.size[1] > MAX_MEMORY:
            for index in range(count):
                self._add(samples, index, samples.payload(index))
            return Images(
                labels=torch.from_numpy(samples.labels.copy()), samples=samples, indices=np.arange(count)
            )
        pixels = torch.empty((count, 3, *self.size), dtype=torch.uint8)
        kept: list[int] = []
        for index in range(count):
            try:
                image = samples.read(index)
            except (OSError, SyntaxError, ValueError) as error:
                self._skip(samples.name(index), error)
                continue
            self._add(samples, index, image.tobytes())
            pixels[len(kept)] = torch.from_numpy(np.array(resized(image, self.size))).permute(2, 0, 1)
            kept.append(index)
        if not kept:
            raise DataError(f"none of the {count} images could be decoded; the first is {samples.name(0)!r}.")
        labels = torch.from_numpy(samples.labels[kept])
        left = set(labels.unique().tolist())
        for label in np.unique(samples.labels):
            if int(label) not in left:
                raise DataError(f"no image of class {samples.class_names[label]!r} could be decoded.")
        return Images(labels=labels, pixels=pixels[: len(kept)].clone() if len(kept) < count else pixels)

    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def _add(self, samples: Samples, index: int, content: bytes) -> None:
        self._digest.update(f"{samples.name(index)}\0{samples.labels[index]}\0{len(content)}\0".encode())
        self._digest.update(content)

    def _skip(self, name: str, error: Exception) -> None:
        if self.strict:
            raise DataError(f"image {name!r} cannot be decoded: {error}.") from error
        self.skipped.append(name)
        self._digest.update(f"{name}\0skipped\0".encode())


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at (H, W): its shorter relative side is fitted, the rest is cropped at the centre."""
    height, width = size
    if (image.height, image.width) == size:
        return image
    scale = max(height / image.height, width / image.width)
    box_height, box_width = height / scale, width / scale
    top, left = (image.height - box_height) / 2, (image.width - box_width) / 2
    return image.resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + box_width, top + box_height)
    )


def _stratified_split(
    labels: np.ndarray, class_names: Sequence[str], shares: tuple[float, float], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of training, validation and test images; every class gives each split its share, at least
    one.
    """
    generator = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        counts = [max(1, round(share * len(members))) if share else 0 for share in shares]
        if sum(counts) >= len(members):
            raise DataError(
                f"class {class_names[label]!r} has {len(members)} images, too few to split into training"
                f"{', validation' if shares[0] else ''}{' and test' if shares[1] else ''} images."
            )
        first, second = counts
        parts[1].extend(members[:first])
        parts[2].extend(members[first : first + second])
        parts[0].extend(members[first + second :])
    ordered = [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]
    return ordered[0], ordered[1], ordered[2]


def _subset(images: Images, indices: np.ndarray) -> Images:
    chosen = torch.from_numpy(indices)
    if images.pixels is not None:
        return Images(labels=images.labels[chosen], pixels=images.pixels[chosen])
    assert images.indices is not None
    return Images(labels=images.labels[chosen], samples=images.samples, indices=images.indices[indices])


def _statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if images.pixels is None:
        return IMAGENET_MEAN, IMAGENET_STD
    # Exact and cheap for any size: the moments of 256 levels, from their counts.
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(3):
        counts = torch.bincount(images.pixels[:, channel].reshape(-1), minlength=256).numpy()
        share = counts / counts.sum()
        centre = float(share @ levels)
        mean.append(centre)
        std.append(max(float(np.sqrt(share @ (levels - centre) ** 2)), 1e-3))
    return tuple(mean), tuple(std)


def _native_size(name: str, samples: Samples) -> tuple[int, int]:
    if name == "digits":
        return DIGITS_SIDE, DIGITS_SIDE
    sizes = set()
    for index in range(len(samples.labels)):
        try:
            image = samples.read(index)
        except (OSError, SyntaxError, ValueError):
            continue
        sizes.add((image.height, image.width))
        if len(sizes) > 1 or max(image.height, image.width) > SMALL_SIDE:
            return DEFAULT_SIDE, DEFAULT_SIDE
        if index >= 1000:
            break
    return sizes.pop() if sizes else (DEFAULT_SIDE, DEFAULT_SIDE)


def _open(name: str, root: str | None, class_names: tuple[str, ...] | None = None) -> Samples:
    base, _, split = name.partition(":") if name.lower().startswith(PREFIXES) else (name, "", "")
    source = open_source(base, split=split or "train", root=root, class_names=class_names)
    if not len(source.labels):
        raise DataError(f"data {name!r} holds no images.")
    return source


def _open_like(name: str, train: Samples, root: str | None) -> Samples:
    """Open held-out images and refuse classes that training does not have."""
    source = _open(name, root)
    unknown = [label for label in source.class_names if label not in train.class_names]
    if unknown:
        raise DataError(
            f"{name!r} has classes that the training data lacks: {class_list(unknown)};"
            f" training classes: {class_list(train.class_names)}."
        )
    if source.class_names != train.class_names:
        # A class without held-out images: the labels must still be those of training.
        return _open(name, root, class_names=train.class_names)
    return source


def _check_classes(name: str, samples: Samples) -> None:
    present = np.unique(samples.labels)
    if len(samples.class_names) < 2 or len(present) < 2:
        only = samples.class_names[int(present[0])]
        raise DataError(f"data {name!r} has one class, {only!r}; a classifier needs at least two.")
    low, high = int(present[0]), int(present[-1])
    if low < 0 or high >= len(samples.class_names):
        raise DataError(
            f"data {name!r} has label {low if low < 0 else high}, but {len(samples.class_names)} classes;"
            f" labels must be 0 to {len(samples.class_names) - 1}."
        )


def _check_fractions(val_fraction: float, test_fraction: float | None) -> None:
    for field, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"{field} is {value!r}; it must be above 0 and below 1.")
    if val_fraction + (test_fraction or 0) >= 1:
        raise ConfigError(
            f"val_fraction {val_fraction:g} and test_fraction {test_fraction:g} leave no training images."
        )


def _input_size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    size = (value, value) if isinstance(value, int) else tuple(value)[-2:]
    channels = value[0] if not isinstance(value, int) and len(value) == 3 else 3
    if len(size) != 2 or channels != 3 or any(not isinstance(side, int) or side < 1 for side in size):
        raise ConfigError(f"input_size is {value!r}; allowed: a side, (H, W) or (3, H, W) in pixels.")
    return size[0], size[1]


def _from_plugin(name: str, **keywords: Any) -> ImageData:
    load = NAMES.load(name)
    with blamed(f"data {name!r}", DataError):
        data = load(**keywords)
    if not isinstance(data, ImageData):
        raise DataError(f"data {name!r} returned {type(data).__name__} instead of ImageData.")
    return data
