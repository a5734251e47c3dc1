"""Which validation images each training got right, compactly in a report file, and as shares."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from se_nas.errors import RunError
from se_nas.report.candidates import Candidate
from se_nas.run import RunFolder

Bits = NDArray[np.bool_]


def read_bits(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> dict[int, Bits]:
    """Those of the final trainings by trial number, shape (images,) each, as far as they were kept."""
    finals = [row["number"] for row in rows if row.get("phase") == "final" and row.get("state") == "complete"]
    found = {number: folder.read_correct(number) for number in finals}
    return {number: bits for number, bits in found.items() if bits is not None}


def to_text(bits: Mapping[int, Bits]) -> dict[str, Any]:
    """JSON-ready: for each trial number of images and base64 of zlib of the packed bits."""
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


def shares(
    candidates: Sequence[Candidate], bits: Mapping[int, Bits]
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Share of each candidate's counted trainings that get an image right, and how many trainings these are.

    Shapes (candidates, images) and (candidates,). None where a training of one was not kept, or not all were
    judged on equally many images: statements about differences need the same images for all.
    """
    rows, counts = [], []
    for candidate in candidates:
        own = [bits.get(reading.number) for reading in candidate.counted]
        known = [one for one in own if one is not None]
        if not known or len(known) < len(own) or len({len(one) for one in known}) > 1:
            return None
        rows.append(np.mean(known, axis=0))
        counts.append(len(known))
    if not rows or len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        return None
    return np.stack(rows), np.array(counts)
