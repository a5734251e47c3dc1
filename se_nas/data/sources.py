"""From the name of a data set to its images: a path, a named set, or an entry point."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from se_nas.data.archives import list_tar
from se_nas.data.classes import FileSamples, refuse_one_class
from se_nas.data.folders import list_folder
from se_nas.data.image_data import Samples
from se_nas.data.listing import LeftOut, Listing, listed
from se_nas.data.named import Digits, open_named
from se_nas.data.splits import find_splits
from se_nas.data.unsorted import how_to_sort, only_folder
from se_nas.errors import DataError, nearest
from se_nas.plugins import Plugins

NAMES = Plugins(option="data", built_in={"digits": Digits}, group="se_nas.data", error=DataError)
PREFIXES = ("torch/", "hfds/", "wds/")

_MIRROR_CHANGES_CLASS = ("digits", "mnist", "kmnist", "qmnist", "emnist", "svhn")
_TORCH_WITH_TEST = tuple(
    f"torch/{each}" for each in ("cifar10", "cifar100", "mnist", "kmnist", "qmnist", "fashion_mnist")
)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Images of each split; None if the data has none of it."""

    train: Samples
    val: Samples | None
    test: Samples | None
    left_out: tuple[LeftOut, ...]
    """Files that are not among the images."""

    def splits(self) -> dict[str, Samples]:
        """Those that are there, by the name of the split."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {split: samples for split, samples in every.items() if samples is not None}


def open_sources(name: str, *, val_data: str | None, test_data: str | None, root: str | None) -> Sources:
    """Open the training images and those that are held out.

    Raises:
        DataError: a name is unknown, a path is missing or holds no images, held-out images are the training
            images or have other classes, or the labels are not those of at least two classes.
    """
    found: dict[str, Listing | None] = {"val": None, "test": None}
    left_out: list[LeftOut] = []
    if _is_named(name):
        train = _open_set(name, root)
        if name.lower() in _TORCH_WITH_TEST:
            test_data = test_data or f"{name}:test"
    else:
        splits = find_splits(_listing(name))
        if len(splits.train.tree.keys() - {""}) == 1:
            FileSamples(splits.train)
            refuse_one_class(name, splits.train)
        train = FileSamples(splits.train)
        found = {"val": splits.val, "test": splits.test}
        left_out += splits.beside
    if not len(train.labels):
        raise DataError(f"data {name!r} holds no images.")
    _check_labels(name, train)
    opened: dict[str, Samples | None] = {}
    for split, given in (("val", val_data), ("test", test_data)):
        listing = found[split]
        if given is not None:
            _refuse_same(name, given, split)
            opened[split] = _open_like(given, train, root)
        else:
            opened[split] = None if listing is None else _files_like(listing, train)
    for samples in (train, *opened.values()):
        left_out += samples.left_out if isinstance(samples, FileSamples) else []
    return Sources(train=train, val=opened["val"], test=opened["test"], left_out=tuple(left_out))


def keeps_class_mirrored(name: str) -> bool:
    """Whether a left-right flip is a fair augmentation of this data set."""
    return name.removeprefix("torch/").lower() not in _MIRROR_CHANGES_CLASS


def known_data() -> list[str]:
    """Names that ``load_data`` takes besides paths and prefixed names: built in and from entry points."""
    return NAMES.names()


def _is_named(name: str) -> bool:
    return name == "digits" or name.lower().startswith(PREFIXES)


def _open_set(name: str, root: str | None) -> Samples:
    if name == "digits":
        return Digits()
    base, _, split = name.partition(":")
    return open_named(base, split or "train", root)


def _listing(name: str) -> Listing:
    path = Path(name).expanduser()
    if not path.exists():
        known = known_data()
        raise DataError(
            f"data {name!r} is neither a folder or tar of class folders nor a known data set."
            f" Known: {', '.join(known)}, or torch/NAME, hfds/NAME, wds/FOLDER.{nearest(name, known)}"
        )
    if path.is_dir():
        return list_folder(name)
    if path.suffix.lower() != ".tar":
        raise DataError(f"data {name!r} is a file but not a .tar; give a folder or a tar of class folders.")
    return list_tar(name)


def _open_like(name: str, train: Samples, root: str | None) -> Samples:
    """Open held-out images and refuse classes that training does not have."""
    if not _is_named(name):
        splits = find_splits(_listing(name))
        if splits.val or splits.test:
            raise DataError(
                f"{name!r} has splits of its own, but held-out images are expected; give one of its folders."
            )
        return _files_like(replace(splits.train, place=f"{Path(name).name}/"), train)
    samples = _open_set(name, root)
    _refuse_unknown(name, samples.class_names, train)
    if samples.class_names != train.class_names[: len(samples.class_names)]:
        raise DataError(
            f"{name!r} has the classes {listed(samples.class_names)}, the training data"
            f" {listed(train.class_names)}; their order must be the same."
        )
    return samples


def _files_like(listing: Listing, train: Samples) -> FileSamples:
    """Held-out files, labelled by the training images' classes; some of these may have none."""
    only = only_folder(listing, train.class_names)
    if only is not None:
        raise DataError(
            f"{listing.root!r} has all its images in one folder, {only!r}, which is not a class of the training"
            f" data{how_to_sort(listing) or f'; training classes: {listed(train.class_names)}'}."
        )
    _refuse_unknown(listing.root, [folder for folder in listing.tree if folder], train)
    return FileSamples(listing, class_names=train.class_names)


def _refuse_unknown(name: str, class_names: list[str] | tuple[str, ...], train: Samples) -> None:
    unknown = [label for label in class_names if label not in train.class_names]
    if unknown:
        raise DataError(
            f"{name!r} has classes that the training data lacks: {listed(unknown)};"
            f" training classes: {listed(train.class_names)}."
        )


def _refuse_same(name: str, given: str, split: str) -> None:
    paths = [Path(each).expanduser() for each in (name, given)]
    both = not _is_named(name) and not _is_named(given) and all(path.exists() for path in paths)
    if given == name or (both and os.path.samefile(*paths)):
        raise DataError(
            f"{split}_data is {given!r}, which is the training data; give other images, or leave it out, and a"
            " share of the training images is held out."
        )


def _check_labels(name: str, samples: Samples) -> None:
    low, high = int(samples.labels.min()), int(samples.labels.max())
    if low < 0 or high >= len(samples.class_names):
        raise DataError(
            f"data {name!r} has label {low if low < 0 else high}, but {len(samples.class_names)} classes;"
            f" labels must be 0 to {len(samples.class_names) - 1}."
        )
    if low == high:
        only = samples.class_names[low]
        raise DataError(f"data {name!r} has one class, {only!r}; a classifier needs at least two.")
