"""Class folders: which images belong to which class, and refusals that show what was found instead."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from se_nas.data.image_data import Payload
from se_nas.data.listing import BESIDE, LeftOut, Listing, is_hidden, is_image, listed, suffix_of
from se_nas.data.pixels import decode, upright_size, verify
from se_nas.data.splits import split_word
from se_nas.data.unsorted import how_to_sort
from se_nas.errors import DataError
from se_nas.wording import counted

_GROUPING = (
    "batch cam camera clip day folder frame group image img page part picture run scene seq sequence series"
    " session set shot subset take video view"
)
"""Folders called so, with or without a number, divide the images of a class and are not classes."""
_IS_GROUPING = re.compile(rf"({'|'.join(_GROUPING.split())})(e?s)?[ _-]?\d*", re.IGNORECASE)


class FileSamples:
    """Images of a folder or a tar, one class per folder directly below its root.

    Threads may read from it at the same time.
    """

    def __init__(self, listing: Listing, class_names: tuple[str, ...] | None = None) -> None:
        """Sort images into classes.

        Args:
            listing: what there is.
            class_names: classes of the training images that held-out images are labelled by.

        Raises:
            DataError: there are no images, no class folders, or a class folder without an image; or the
                folders of classes stand below several others.
        """
        classes = _class_folders(listing)
        self.class_names = class_names or tuple(classes)
        self.place = listing.place
        beside = [file.name for file in listing.images if not listing.folder_of(file)]
        self.left_out = [LeftOut(self.place + name, BESIDE) for name in beside]
        self.left_out += [LeftOut(self.place + name, reason) for name, reason in listing.left_out]
        index = {name: position for position, name in enumerate(self.class_names)}
        folders = [(file, listing.folder_of(file)) for file in listing.images]
        self._files = [file for file, folder in folders if folder]
        self.labels = np.asarray([index[folder] for _, folder in folders if folder], dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        with self._files[index].open() as stream:
            return decode(stream)

    def size(self, index: int) -> tuple[int, int]:
        with self._files[index].open() as stream:
            return upright_size(stream)

    def name(self, index: int) -> str:
        return self._files[index].name

    def payload(self, index: int) -> Payload:
        with self._files[index].open() as stream:
            return Payload.of_file(*verify(stream))


def refuse_one_class(name: str, listing: Listing) -> None:
    """Refuse a data set with one class folder; say where several are, one level up or down.

    Raises:
        DataError: always.
    """
    (only,) = listing.tree.keys() - {""}
    text = f"data {name!r} has one class, {only!r}; a classifier needs at least two"
    sort = how_to_sort(listing)
    if sort:
        raise DataError(f"{text}{sort}.")
    folders = [file.name.removeprefix(listing.prefix).split("/")[:-1] for file in listing.images]
    inside = [folder for folder in folders if folder[:1] == [only]]
    around = posixpath.commonpath(["/".join(folder) for folder in inside]).split("/")
    below = sorted({folder[len(around)] for folder in inside if len(folder) > len(around)})
    if len(below) > 1:
        path, where = "/".join((listing.root, *around)), "its folders" if len(around) == 1 else "the folders"
        raise DataError(f"{text}; if the classes are {where} {listed(below)}, give {path!r}.")
    raise DataError(f"{text}{_above(listing)}")


def _class_folders(listing: Listing) -> list[str]:
    folders = listing.first_folders()
    holding = [folder for folder in folders if folder in listing.tree]
    if not holding:
        _refuse_no_class(listing)
    for folder in folders:
        if folder not in listing.tree:
            raise DataError(_empty_folder(listing, folder))
    _refuse_shared_folders(listing)
    return holding


def _refuse_no_class(listing: Listing) -> None:
    images = listing.tree.get("", Counter()).total()
    if images:
        sort = how_to_sort(listing)
        raise DataError(
            f"{listing.root!r} has {counted(images, 'image')} and no class folders; expected one folder of images per"
            f" class{f'{sort}.' if sort else _above(listing)}"
        )
    suffixes = Counter(suffix_of(name) or "no suffix" for name, _ in listing.left_out)
    found = ", ".join(f"{count} with {suffix}" for suffix, count in suffixes.most_common(5))
    raise DataError(
        f"no images were found in {listing.root!r}: it has {f'other files only, {found}' if found else 'no files'}."
    )


def _empty_folder(listing: Listing, folder: str) -> str:
    start = f"{listing.prefix}{folder}"
    found = [left for left in listing.left_out if left.name == start or left.name.startswith(f"{start}/")]
    held = "is empty"
    if found:
        name, reason = found[0]
        held = (
            f"is {reason}"
            if name == start
            else f"holds {counted(len(found), 'file')}, such as {name!r} ({reason})"
        )
    return (
        f"the class folder {folder!r} of {listing.root!r} has no image that can be read: it {held};"
        " add images or remove the folder."
    )


def _refuse_shared_folders(listing: Listing) -> None:
    """Refuse folders of the same name below several others: either level may be that of the classes."""
    parents = {
        first: {name for name in below if not _IS_GROUPING.fullmatch(name)}
        for first, below in listing.tree.items()
        if first and "" not in below
    }
    times = Counter(name for below in parents.values() for name in below)
    shared = {name for name, count in times.items() if count > 1}
    both = [first for first, below in parents.items() if len(below) > 1 and below & shared]
    if both:
        tops = [first for first, below in parents.items() if below & shared]
        raise DataError(
            f"{listing.root!r} has folders of the same name, {listed(sorted(shared), 4)}, below {listed(tops, 4)};"
            f" if {listed(tops[:2])} are splits, name them train and val; if they are classes, put their images"
            " directly into them."
        )


def _above(listing: Listing) -> str:
    """The end of a sentence: "; did you mean PARENT, ...?" if the folder above has several folders with images."""
    path = Path(listing.root).expanduser().absolute()
    if not path.is_dir() or split_word(path.name) is not None:
        return "."
    siblings = sorted(
        each.name
        for each in path.parent.iterdir()
        if each.is_dir() and not is_hidden(each.name) and _shows(each)
    )
    if len(siblings) < 2:
        return "."
    return f"; did you mean {str(path.parent)!r}, which has the folders {listed(siblings, 4)}?"


def _shows(folder: Path) -> bool:
    """Whether a folder holds an image directly or in a folder below, found without a long walk."""
    return any(is_image(each.name) for pattern in ("*", "*/*") for each in folder.glob(pattern))
