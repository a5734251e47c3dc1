"""``load_data``: from a name to an ``ImageData``, with every mistake found before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from se_nas.arguments import checked
from se_nas.data.checking import Checker, Progress, compare_splits, native_size, unread
from se_nas.data.image_data import ImageData, Images
from se_nas.data.partition import hold_out, statistics
from se_nas.data.sources import NAMES, keeps_class_mirrored, known_data, open_sources
from se_nas.errors import ConfigError, DataError, blamed

DEFAULT_SIDE = 224
DIGITS_SIDE = 32


@checked
def load_data(
    name: str | Path = "digits",
    *,
    val_data: str | Path | None = None,
    test_data: str | Path | None = None,
    input_size: int | tuple[int, int] | tuple[int, int, int] | None = None,
    val_fraction: float = 0.2,
    test_fraction: float | None = None,
    split_seed: int = 0,
    strict: bool = False,
    root: str | Path | None = None,
    check: bool = True,
    progress: Progress | None = None,
) -> ImageData:
    """Read a data set, check every image, split it and take its fingerprint.

    Args:
        name: "digits"; a folder or tar of class folders, or of such named ``train``, ``val`` and ``test``;
            ``torch/NAME``, ``hfds/NAME`` or ``wds/FOLDER`` as timm's ``create_dataset`` knows them; or the
            name of an entry point of the group ``se_nas.data``.
        val_data: validation images, named likewise (``NAME:SPLIT`` picks a split of a prefixed name). None: a
            ``val`` beside ``train``, else a stratified share of the training images.
        test_data: test images, named likewise. They are for the final report and never for selection.
        input_size: side, (H, W) or (3, H, W) of what the model gets. None: 32 for digits, the images' size if
            all are equal and at most 96 pixels, else 224.
        val_fraction, test_fraction: shares of each class that become validation and test images, in (0, 1).
        split_seed: seed of that choice. It is not the training seed, so that runs with different seeds can be
            compared.
        strict: make an image that cannot be decoded an error. Otherwise it is left out and named in
            ``skipped``.
        root: folder that prefixed names are stored in.
        check: read every image. Otherwise they are only counted: nothing is found damaged, and the fingerprint is not
            that of the content. Entry points read them in any case.
        progress: called with the number of images checked so far and of all; not by entry points.

    Raises:
        DataError: the data is missing, empty, has one class, has an unreadable image (``strict``), or its
            held-out images have other classes or are the training images.
        ConfigError: a path is empty, or a fraction or the input size makes no sense.
    """
    name = _path("data", name)
    val_data, test_data, root = (
        None if value is None else _path(field, value)
        for field, value in (("val_data", val_data), ("test_data", test_data), ("root", root))
    )
    _check_split(val_fraction, test_fraction, split_seed)
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
    sources = open_sources(name, val_data=val_data, test_data=test_data, root=root)
    default = (DEFAULT_SIDE, DEFAULT_SIDE)
    size = size or ((DIGITS_SIDE,) * 2 if name == "digits" else native_size(sources.train, default))
    opened = sources.splits()
    total = sum(len(samples.labels) for samples in opened.values())
    checker = Checker(size, strict=strict, total=total, progress=progress)
    images: dict[str, Images] = {}
    contents: dict[str, dict[bytes, str]] = {}
    for split, samples in opened.items():
        if check:
            images[split], contents[split] = checker.read(samples, compare=len(opened) > 1)
        else:
            images[split], contents[split] = unread(samples), {}
    remarks = compare_splits(contents)
    train, val, test = images["train"], images.get("val"), images.get("test")
    if val is None or (test is None and test_fraction):
        shares = (0.0 if val else val_fraction, 0.0 if test else (test_fraction or 0.0))
        train, new_val, new_test = hold_out(train, sources.train.class_names, shares, split_seed)
        val = val or new_val
        test = test or (new_test if len(new_test) else None)
    mean, std = statistics(train)
    left_out = [*checker.skipped, *sources.left_out]
    return ImageData(
        name=name,
        class_names=sources.train.class_names,
        input_size=(3, *size),
        fingerprint=checker.fingerprint(),
        skipped=tuple(left.name for left in left_out),
        train=train,
        val=val,
        test=test,
        mean=mean,
        std=std,
        split_seed=split_seed,
        mirror=keeps_class_mirrored(name),
        reasons=tuple(left.reason for left in left_out),
        remarks=remarks,
    )


def _path(field: str, value: Any) -> str:
    """A path or name as text; an empty one is a shell variable that is not set."""
    text = str(value) if isinstance(value, str | Path) else value
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(
            f"{field} is {value!r}; allowed: a path or the name of a data set ({', '.join(known_data())},"
            " torch/NAME, hfds/NAME, wds/FOLDER)."
        )
    return text


def _check_split(val_fraction: float, test_fraction: float | None, split_seed: int) -> None:
    if split_seed < 0:
        raise ConfigError(f"split_seed is {split_seed}; it must be 0 or above.")
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
