"""Files below a folder: every real folder once, hidden ones left aside, links followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from se_nas.data.archives import list_tar
from se_nas.data.listing import (
    DEAD_LINK,
    LINK,
    NOT_IMAGE,
    SPECIAL,
    LeftOut,
    Listing,
    StoredFile,
    encodable,
    is_hidden,
    is_image,
    is_silent,
    suffix_of,
)
from se_nas.data.splits import split_word
from se_nas.errors import DataError


def list_folder(root: str) -> Listing:
    """What lies below a folder.

    Tars directly in it count as folders if there is no folder with images; a tar beside a folder of the same
    name (unpacked and kept) never does.

    Raises:
        DataError: a folder cannot be listed, or a tar in it is damaged.
    """
    walk = _Walk(Path(root).expanduser())
    listing = Listing.of(root, walk.images, walk.left_out, walk.folders)
    return _with_tars(listing, walk.tars)


class _Walk:
    """Real folders first, then links in their order, so that a folder is read under its own name."""

    def __init__(self, root: Path) -> None:
        self.images: list[StoredFile] = []
        self.left_out: list[LeftOut] = []
        self.folders: list[str] = []
        self.tars: list[StoredFile] = []
        self._seen: set[tuple[int, int]] = {_identity(root)} | {_identity(p) for p in root.resolve().parents}
        self._links: list[tuple[str, str]] = []
        self._below(str(root), "")
        while self._links:
            links, self._links = sorted(self._links), []
            for name, path in links:
                if self._is_new(path):
                    self.folders.append(name)
                    self._below(path, f"{name}/")
                else:
                    self.left_out.append(LeftOut(name, LINK))

    def _below(self, folder: str, prefix: str) -> None:
        waiting = [(folder, prefix)]
        while waiting:
            folder, prefix = waiting.pop()
            for entry in _entries(folder):
                name = prefix + encodable(entry.name)
                if entry.is_dir():
                    if is_hidden(entry.name):
                        continue
                    if entry.is_symlink():
                        self._links.append((name, entry.path))
                    elif self._is_new(entry.path):
                        self.folders.append(name)
                        waiting.append((entry.path, f"{name}/"))
                elif not is_silent(entry.name):
                    self._file(entry, name)

    def _file(self, entry: os.DirEntry[str], name: str) -> None:
        if is_image(entry.name) and (entry.is_file() or entry.is_symlink()):
            self.images.append(StoredFile(name, entry.path))
        elif not entry.is_file():
            self.left_out.append(LeftOut(name, DEAD_LINK if entry.is_symlink() else SPECIAL))
            if entry.is_symlink() and not suffix_of(name) and "/" not in name:
                self.folders.append(name)  # A class folder whose target is gone is missed, not ignored.
        elif "/" not in name and entry.name.lower().endswith(".tar"):
            self.tars.append(StoredFile(name, entry.path))
        else:
            self.left_out.append(LeftOut(name, NOT_IMAGE))

    def _is_new(self, path: str) -> bool:
        known = len(self._seen)
        self._seen.add(_identity(path))
        return len(self._seen) > known


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"folder {folder!r} cannot be listed: {error.strerror or error}.") from error


def _identity(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _with_tars(listing: Listing, tars: list[StoredFile]) -> Listing:
    holding = [folder for folder in listing.tree if folder]
    words = {split_word(folder) for folder in holding}
    images, left_out, folders = list(listing.images), list(listing.left_out), list(listing.folders)
    for tar in tars:
        name = tar.name[: -len(".tar")]
        word = split_word(name)
        if holding and (None in words or word is None or word in words):
            left_out.append(LeftOut(tar.name, NOT_IMAGE))
            continue
        inside = list_tar(tar.path)
        start = len(inside.prefix)
        folders += [name, *(f"{name}/{folder[start:]}" for folder in inside.folders)]
        images += [replace(file, name=f"{name}/{file.name[start:]}") for file in inside.images]
        left_out += [LeftOut(f"{name}/{left.name[start:]}", left.reason) for left in inside.left_out]
    return Listing.of(listing.root, images, left_out, folders)
