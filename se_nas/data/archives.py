"""Files in a tar, read where they lie: nothing is unpacked."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from se_nas.data.listing import (
    DEAD_LINK,
    NOT_IMAGE,
    SPECIAL,
    LeftOut,
    Listing,
    StoredFile,
    encodable,
    is_hidden,
    is_image,
    is_silent,
)
from se_nas.errors import DataError

MAX_LINKS = 40
"""Links that are followed one after another, as the system does."""


def list_tar(root: str) -> Listing:
    """What an uncompressed tar holds; a tar in it counts as a folder, and folders around all others fall away.

    Raises:
        DataError: the file is not a tar, is damaged, or has a member that points out of it.
    """
    path = Path(root).expanduser()
    scan = _Scan(root, str(path))
    try:
        with path.open("rb") as stream:
            scan.members(stream, "", 0)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{root!r} cannot be read as a tar: {str(error).strip() or 'it is empty'}."
        ) from error
    scan.follow_links()
    return _unwrapped(Listing.of(root, *scan.sorted_out()))


class _Scan:
    def __init__(self, root: str, path: str) -> None:
        self._root, self._path = root, path
        self._files: dict[str, StoredFile] = {}
        self._links: dict[str, str] = {}
        self._others: dict[str, str] = {}
        self._folders: dict[str, None] = {}

    def members(self, stream: BinaryIO, prefix: str, start: int) -> None:
        """Collect the members of a tar that begins at ``start`` of the file; a later one of a name wins."""
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = prefix + self._checked(member.name)
                if member.isdir():
                    self._folders[name] = None
                elif member.issym() or member.islnk():
                    self._links[name] = self._target(member, prefix, name)
                elif not member.isreg() or member.issparse():
                    self._others[name] = SPECIAL
                elif name.lower().endswith(".tar"):
                    inside = tar.extractfile(member)
                    assert inside is not None
                    self.members(inside, f"{name[: -len('.tar')]}/", start + member.offset_data)  # type: ignore[arg-type]
                else:
                    self._files[name] = StoredFile(name, self._path, start + member.offset_data, member.size)

    def follow_links(self) -> None:
        """Give links to members their content."""
        for name, target in self._links.items():
            for _ in range(MAX_LINKS):
                target = self._links.get(target, target)
            if target in self._files:
                self._files[name] = replace(self._files[target], name=name)
            else:
                self._others[name] = DEAD_LINK

    def sorted_out(self) -> tuple[list[StoredFile], list[LeftOut], list[str]]:
        """Images, what is left out, and folders; hidden ones are in none of them."""
        images, left_out = [], []
        folders = [folder for folder in self._folders if not _is_below_hidden(f"{folder}/")]
        for name, file in self._files.items():
            if _is_below_hidden(name) or is_silent(posixpath.basename(name)):
                continue
            folders += _parents(name)
            if is_image(name):
                images.append(file)
            else:
                left_out.append(LeftOut(name, NOT_IMAGE))
        left_out += [
            LeftOut(name, reason)
            for name, reason in self._others.items()
            if not _is_below_hidden(name) and not is_silent(posixpath.basename(name))
        ]
        return images, left_out, folders

    def _checked(self, name: str) -> str:
        """The name below the root of the tar, or a refusal."""
        windows = PureWindowsPath(name)
        if name.startswith("/") or windows.drive or windows.root or ".." in windows.parts:
            raise DataError(
                f"{self._root!r} has the member {name!r}, which points out of the archive; pack the folder again."
            )
        return encodable(str(PurePosixPath(name))) if name else ""

    def _target(self, member: tarfile.TarInfo, prefix: str, name: str) -> str:
        """Where a link leads, below the root of the tar."""
        target = member.linkname
        if member.issym() and not target.startswith("/"):
            target = posixpath.join(posixpath.dirname(name[len(prefix) :]), target)
        target = posixpath.normpath(encodable(target))
        if target.startswith(("/", "../")) or target == "..":
            raise DataError(
                f"{self._root!r} has the link {member.name!r} to {member.linkname!r}, which leads out of the"
                " archive; pack the folder again, with the files themselves (tar --dereference)."
            )
        return prefix + target


def _unwrapped(listing: Listing) -> Listing:
    """Without the folders that stand alone around all others; a folder of images is not one of them."""
    while True:
        tree = listing.tree
        folder = next(iter(tree), "")
        if len(tree) != 1 or not folder or "" in tree[folder]:
            return listing
        listing = replace(listing, prefix=f"{listing.prefix}{folder}/")


def _is_below_hidden(name: str) -> bool:
    return any(is_hidden(part) for part in name.split("/")[:-1])


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
