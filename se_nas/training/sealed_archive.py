"""A digest inside a file of ``torch.save``, as the comment of its zip archive, which PyTorch and zip readers allow.

PyTorch writes checksums of the records of an archive and does not look at them, so it takes a changed bit for another
number.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

_END, _CHUNK = b"PK\x05\x06", 2**20
_END_SIZE, _LENGTH, _DIGEST = 22, 2, 64
"""Bytes of the archive's last record without a comment, of the comment's length at its end, and of the comment."""

_OF_DAMAGED_ARCHIVES = (
    ArithmeticError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What ``zipfile`` raises besides its own error if a changed bit asks for another method, place or password."""


def seal(path: Path) -> None:
    """Put a digest of everything before it at the end of an archive without a comment."""
    size = path.stat().st_size - _LENGTH
    with path.open("rb+") as stream:
        mark = _mark(stream, size)
        stream.seek(size)
        stream.write(mark)


def check_seal(path: Path) -> None:
    """Compare an archive with its digest; one without, of an earlier version, with the checksums of its records.

    Raises:
        zipfile.BadZipFile: it is damaged, or not such an archive.
        OSError: it cannot be read.
    """
    size = path.stat().st_size - _LENGTH - _DIGEST
    with path.open("rb") as stream:
        if size > 0:
            mark = _mark(stream, size)
            if stream.read() == mark:
                return
        stream.seek(max(0, size + _LENGTH + _DIGEST - _END_SIZE))
        end = stream.read()
    if not (end.startswith(_END) and end.endswith(b"\0" * _LENGTH)):
        raise zipfile.BadZipFile("its digest is not that of its content")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except _OF_DAMAGED_ARCHIVES as error:
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of {broken!r} is wrong")


def _mark(stream: BinaryIO, size: int) -> bytes:
    """Length and text of the comment for the next ``size`` bytes, which are read."""
    digest, left = hashlib.sha256(), size
    while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    return struct.pack("<H", _DIGEST) + digest.hexdigest().encode()
