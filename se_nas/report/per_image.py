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
    finals = [row.number for row in rows if row.phase == "final" and row.state == "complete"]
    found = {number: folder.read_correct(number) for number in finals}
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
        found = {}
        for number, (count, text) in (data or {}).items():
            packed = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=np.uint8)
            if len(packed) != -(-count // 8):
                raise ValueError(f"trial {number} has bits of {8 * len(packed)} images instead of {count}")
            found[int(number)] = np.unpackbits(packed, count=count).astype(np.bool_)
    except (AttributeError, TypeError, ValueError, zlib.error) as error:
        raise RunError(f"the correct images are damaged: {error}.") from error
    return found


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
