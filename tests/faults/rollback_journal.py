"""SQLite's rollback journal, written as SQLite writes it: https://sqlite.org/fileformat2.html#the_rollback_journal."""

import random
import struct

MAGIC = bytes.fromhex("d9d505f920a163d7")
SECTOR = 512


def page_size(content):
    """Bytes of a page of a database, from its header."""
    size = int.from_bytes(content[16:18], "big")
    return 65536 if size == 1 else size


def pages_of(content):
    size = page_size(content)
    return [content[start : start + size] for start in range(0, len(content), size)]


def changed_pages(before, after):
    """Numbers, from 0, of the pages of ``after`` that ``before`` lacks or has otherwise."""
    old, new = pages_of(before), pages_of(after)
    return [index for index, page in enumerate(new) if index >= len(old) or old[index] != page]


def journal(before, changed):
    """The journal of a transaction on ``before`` that changes these pages, as it is when they may be overwritten."""
    pages, nonce = pages_of(before), random.getrandbits(32)
    kept = [index for index in changed if index < len(pages)]
    header = MAGIC + struct.pack(">5I", len(kept), nonce, len(pages), SECTOR, page_size(before))
    return header.ljust(SECTOR, b"\0") + b"".join(
        struct.pack(">I", index + 1) + pages[index] + struct.pack(">I", _checksum(pages[index], nonce))
        for index in kept
    )


def _checksum(page, nonce):
    return (nonce + sum(page[index] for index in range(len(page) - 200, 0, -200))) % 2**32
