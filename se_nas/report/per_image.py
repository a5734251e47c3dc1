"""Which validation images each training classified correctly: compactly in a report file, and by candidate."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from se_nas.errors import RunError
from se_nas.report.candidates import Candidate
from se_nas.run import RunFolder, TrialRow

Bits = NDArray[np.bool_]


def read_bits(folder: RunFolder, rows: Sequence[TrialRow]) -> dict[int, Bits]:
    """For the final trainings, by trial number, shape (images,) each, as far as they were kept."""
    finals = [row for row in rows if row.phase == "final" and row.state == "complete"]
    found = {row.number: folder.read_correct(row.number, row.correct) for row in finals}
    return {number: bits for number, bits in found.items() if bits is not None}


def to_text(bits: Mapping[int, Bits]) -> dict[str, Any]:
    """JSON-ready: for each trial the number of images, and base64 of zlib of the packed bits."""
    return {
        str(number): [
            len(own),
            base64.b64encode(zlib.compress(np.packbits(own).tobytes(), 9)).decode("ascii"),
        ]
        for number, own in bits.items()
    }


def from_text(data: Any) -> dict[int, Bits]:
    """What ``to_text`` was given.

    Raises:
        RunError: it is something else.
    """
    try:
        return {int(number): _unpacked(*own) for number, own in (data or {}).items()}
    except (AttributeError, TypeError, ValueError, zlib.error) as error:
        raise RunError(f"the correct images are damaged: {error}.") from error


def _unpacked(count: int, text: str) -> Bits:
    size = -(-count // 8)
    # A few bytes can be the compressed form of all memory.
    content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(content) != size:
        raise ValueError(f"there are not as many bits as images, {count}")
    return np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=count).astype(np.bool_)


def hits_by_seed(candidates: Sequence[Candidate], bits: Mapping[int, Bits]) -> list[dict[int, Bits]] | None:
    """For each candidate, seed → which images its counted training with that seed classified correctly.

    None if that was not kept for one of the trainings, or if they were validated on different numbers of images:
    statements about differences need the same images for all.
    """
    found: list[dict[int, Bits]] = []
    for candidate in candidates:
        own = {reading.seed: bits.get(reading.number) for reading in candidate.counted}
        known = {seed: one for seed, one in own.items() if seed is not None and one is not None}
        if not known or len(known) < len(own):
            return None
        found.append(known)
    sizes = {len(one) for own in found for one in own.values()}
    return found if len(sizes) == 1 and min(sizes) > 1 else None
