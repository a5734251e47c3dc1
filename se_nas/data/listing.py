"""What a folder or an archive holds: files by their place below the root, before any is opened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from typing import BinaryIO, NamedTuple

from se_nas.data.pixels import image_suffixes

BESIDE = "beside the class folders"
DEAD_LINK = "a dead link"
LINK = "a link to a folder that is read under another name"
NOT_IMAGE = "not an image by its suffix"
SPECIAL = "not a regular file"

_SYSTEMS = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found")
_SILENT = ("thumbs.db", "desktop.ini")


class LeftOut(NamedTuple):
    """A file that is not among the images, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on disk, or ``size`` bytes from ``start`` in one (a member of a tar).

    Attributes:
        name: place below the root, with "/".
        path: of the file on disk.
    """

    name: str
    path: str
    start: int = 0
    size: int | None = None

    def open(self) -> BinaryIO:
        """The content. Every call opens the file anew, so that threads and processes share no position."""
        stream = open(self.path, "rb")  # noqa: SIM115
        if self.size is None:
            return stream
        with stream:
            stream.seek(self.start)
            return BytesIO(stream.read(self.size))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images of a folder or archive in natural order, and what else there is.

    Attributes:
        root: as the user wrote it.
        images: files with the suffix of an image.
        left_out: other files, but for those that systems leave behind (``._*``, ``.DS_Store``).
        folders: visible folders at any depth, those without an image included.
        prefix: part of every image's name that stands above the class folders ("pets/" in a wrapped tar).
        place: part that is put before names for messages ("val/" for that split of a folder).
    """

    root: str
    images: tuple[StoredFile, ...]
    left_out: tuple[LeftOut, ...]
    folders: tuple[str, ...]
    prefix: str = ""
    place: str = ""

    @classmethod
    def of(
        cls,
        root: str,
        images: Iterable[StoredFile],
        left_out: Iterable[LeftOut],
        folders: Iterable[str],
    ) -> Listing:
        """In natural order, whatever the order of the file system."""
        return cls(
            root=root,
            images=tuple(sorted(images, key=lambda file: (natural_key(file.name), file.name))),
            left_out=tuple(sorted(left_out)),
            folders=tuple(sorted(set(folders), key=lambda name: (natural_key(name), name))),
        )

    def folder_of(self, file: StoredFile) -> str:
        """The first folder below the root and the prefix; "" for a file that lies in none."""
        folder, slash, _ = file.name[len(self.prefix) :].partition("/")
        return folder if slash else ""

    @cached_property
    def tree(self) -> dict[str, Counter[str]]:
        """Images by first folder ("" for the root) and by second folder ("" for those directly in the first)."""
        tree: dict[str, Counter[str]] = {}
        start = len(self.prefix)
        for file in self.images:
            first, *deeper = file.name[start:].split("/", 2)
            first, second = (first if deeper else ""), (deeper[0] if len(deeper) > 1 else "")
            tree.setdefault(first, Counter())[second] += 1
        return tree

    def first_folders(self) -> list[str]:
        """Visible folders directly below the root and the prefix, those without an image included."""
        names = (name[len(self.prefix) :] for name in self.folders if name.startswith(self.prefix))
        return [name for name in names if name and "/" not in name]

    def below(self, folder: str) -> Listing:
        """One first folder as a listing of its own, names counted from there."""
        start = f"{self.prefix}{folder}/"
        images = [
            replace(file, name=file.name[len(start) :]) for file in self.images if file.name.startswith(start)
        ]
        left_out = [
            LeftOut(name[len(start) :], reason) for name, reason in self.left_out if name.startswith(start)
        ]
        folders = [name[len(start) :] for name in self.folders if name.startswith(start)]
        found = Listing.of(f"{self.root}/{folder}", images, left_out, folders)
        return replace(found, place=f"{folder}/")


def natural_key(name: str) -> list[str | int]:
    """Sorts "2" before "10", without regard to case."""
    parts: list[str | int] = list(re.split(r"(\d+)", name.lower()))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts


def encodable(name: str) -> str:
    """A name with bytes that are not UTF-8 written out, so that it can go into messages and files."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def is_image(name: str) -> bool:
    return suffix_of(name) in image_suffixes()


def is_silent(name: str) -> bool:
    """Whether a file is one that systems leave behind and nobody misses."""
    return name.startswith("._") or (name.startswith(".") and not is_image(name)) or name.lower() in _SILENT


def is_hidden(folder: str) -> bool:
    """Whether a folder is none of the user's: its name starts with a dot, or a system has made it."""
    return folder.startswith(".") or folder.lower() in _SYSTEMS


def suffix_of(name: str) -> str:
    """The suffix in lower case with the dot, "" if there is none."""
    base = name.rpartition("/")[2]
    head, dot, tail = base.rpartition(".")
    return f".{tail.lower()}" if dot and head else ""


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Names for a message, shortened."""
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
