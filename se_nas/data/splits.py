"""Which folders of a data set are its training, validation and test images."""

from __future__ import annotations

import re
from dataclasses import dataclass

from se_nas.data.listing import BESIDE, LeftOut, Listing, listed
from se_nas.errors import DataError

_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Listings of a data set, and the files beside their folders."""

    train: Listing
    val: Listing | None = None
    test: Listing | None = None
    beside: tuple[LeftOut, ...] = ()


def split_word(name: str) -> str | None:
    """ "train", "val" or "test" if a folder is named like one, in any case and with or without "set"."""
    return _SPLIT_OF.get(re.sub(r"(?<=.)[ _-]?set$", "", name.strip().lower()))


def find_splits(listing: Listing) -> Splits:
    """Training, validation and test images of a listing; the latter None if it has no folders for them.

    Folders without an image do not count.

    Raises:
        DataError: there are held-out folders only, two folders for one split, or a folder beside the splits.
    """
    found = {folder: split_word(folder) for folder in listing.tree if folder}
    folders: dict[str, list[str]] = {}
    for folder, split in found.items():
        if split is not None:
            folders.setdefault(split, []).append(folder)
    others = [folder for folder, split in found.items() if split is None]
    if others or not folders:
        _refuse_unknown_names(listing, list(found))
        named = [folder for folder, split in found.items() if split is not None]
        # A class may be called "train", but not one that holds folders of classes itself.
        if any("" not in listing.tree[folder] and len(listing.tree[folder]) > 1 for folder in named):
            raise DataError(
                f"{listing.root!r} has {listed(named)} and beside {'it' if len(named) == 1 else 'them'}"
                f" {listed(others)}, which is neither a split nor one of its classes; move it away, or give the"
                " splits with --data and --val-data."
            )
        return Splits(train=listing)
    for split, names in folders.items():
        if len(names) > 1:
            raise DataError(
                f"{listing.root!r} has {len(names)} folders of {split} images, {listed(names)}; keep one,"
                " or give it with --data and --val-data."
            )
    if "train" not in folders:
        raise DataError(
            f"{listing.root!r} has {listed(list(found))} but no training images (a folder or tar named"
            f" {' or '.join(_WORDS['train'])})."
        )
    beside = [LeftOut(file.name, BESIDE) for file in listing.images if not listing.folder_of(file)]
    beside += [left for left in listing.left_out if "/" not in left.name]
    train, val, test = (
        listing.below(folders[split][0]) if split in folders else None for split in ("train", "val", "test")
    )
    assert train is not None
    return Splits(train=train, val=val, test=test, beside=tuple(beside))


def _refuse_unknown_names(listing: Listing, folders: list[str]) -> None:
    """Refuse folders that are splits under names that are not known, such as train2017 and val2017."""
    splits = [
        {_SPLIT_OF[word] for word in re.findall("[a-z]+", name.lower()) if word in _SPLIT_OF}
        for name in folders
    ]
    if len(folders) > 1 and all(splits) and "train" in set.union(*splits) and len(set.union(*splits)) > 1:
        raise DataError(
            f"{listing.root!r} has {listed(folders)}, which look like splits rather than classes; name them"
            " train, val and test, or give them with --data, --val-data and --test-data."
        )
