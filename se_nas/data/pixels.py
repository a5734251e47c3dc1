"""From the bytes of an image file to RGB pixels, by one documented rule per Pillow mode (docs/data.md)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import SEEK_END, BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

_NOT_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow only recognises, or hands to another program (Ghostscript)."""
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 274
_BITS, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2
"""Tags of TIFF: bits per sample, and whether samples are signed."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
TAIL = 4096
"""Bytes at the end of a file that, with its size, stand for its content."""
_AT_ONCE = 65_536
"""Files up to this size are read in one go, which is faster than in parts."""


class UnreadableImageError(OSError):
    """A file is not an image that Pillow reads, is damaged, or has pixels for which there is no rule."""


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case and with the dot, of the picture formats that Pillow reads."""
    known, formats = Image.registered_extensions(), _formats()
    return frozenset(suffix for suffix, name in known.items() if name in formats)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NOT_PICTURES)


@contextmanager
def image_warnings() -> Iterator[None]:
    """Pillow's warning of a decompression bomb is an error inside, and its remarks on metadata are silent.

    Filters of warnings belong to the process: enter this before threads are started, not inside them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(stream: BinaryIO) -> Image.Image:
    """The first frame of an image as RGB, upright.

    Raises:
        UnreadableImageError: whatever goes wrong; plug-ins of Pillow raise nearly every type of exception.
    """
    try:
        image = Image.open(stream, formats=_formats())
        image.load()
        return _upright(to_rgb(image), image)
    except Exception as error:
        raise _unreadable(error) from error


def upright_size(stream: BinaryIO) -> tuple[int, int]:
    """(height, width) of an image as ``decode`` gives it, from the header alone where that has it.

    Raises:
        UnreadableImageError: as ``decode``.
    """
    try:
        with Image.open(stream, formats=_formats()) as image:
            # Pillow turns a TIFF itself, and decodes a whole PNG to look for an orientation behind its pixels.
            asked = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            turned = asked and _orientation(image) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        raise _unreadable(error) from error


def verify(stream: BinaryIO) -> tuple[int, bytes]:
    """Check an image that will be decoded later, and return what stands for its content.

    A PNG is checked by its checksums and a JPEG by its end, which cost little; other formats are decoded.

    Returns:
        The size of the file and its last 4 KiB.

    Raises:
        UnreadableImageError: as ``decode``.
    """
    try:
        size = stream.seek(0, SEEK_END)
        stream.seek(0 if size <= _AT_ONCE else size - TAIL)
        end_of_file = stream.read()
        tail = end_of_file[-TAIL:]
        if size <= _AT_ONCE:
            stream = BytesIO(end_of_file)
        stream.seek(0)
        image = Image.open(stream, formats=_formats())
        end = _ENDS.get(image.format or "")
        if end is None or not tail.endswith(end) or image.mode in (*_WIDE, "F"):
            image.load()
            to_rgb(image)
        else:
            image.verify()
    except Exception as error:
        raise _unreadable(error) from error
    return size, tail


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image of any mode as RGB, 8 bits a channel.

    Raises:
        ValueError: the pixels are floating-point or signed numbers below zero, for which no scale is known.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown scale")
    if image.mode in _WIDE:
        return _scaled(image).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at (H, W): its shorter relative side is fitted, the rest is cropped at the centre."""
    height, width = size
    if (image.height, image.width) == size:
        return image
    scale = max(height / image.height, width / image.width)
    box_height, box_width = height / scale, width / scale
    top, left = (image.height - box_height) / 2, (image.width - box_width) / 2
    return image.resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + box_width, top + box_height)
    )


def _scaled(image: Image.Image) -> Image.Image:
    """The highest 8 bits of integer levels, by the range of what the file stores."""
    bits, signed = _stored_range(image)
    levels = np.asarray(image)
    levels = (levels if signed or bits < 32 else levels.view(np.uint32)).astype(np.int64)
    if signed and levels.min(initial=0) < 0:
        raise ValueError(f"it has the level {levels.min()}, and RGB has no levels below zero")
    top = bits - 1 if signed else bits
    grey = levels >> (top - 8)
    if bits == 32 and levels.any() and not grey.any():
        raise ValueError(
            f"its levels end at {levels.max()} of 2^{top}, so all would be black; store them as 8 or 16 bits"
        )
    if isinstance(key := image.info.get("transparency"), int):
        grey[levels == key] = 255
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def _stored_range(image: Image.Image) -> tuple[int, bool]:
    """Bits of a level and whether one of them is a sign."""
    if image.mode != "I" and image.format != "TIFF":
        return 16, False
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return int(tags[_BITS][0]), tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    # Pillow reads greys of 16 bits from PNG (its older versions) and PGM into 32.
    return (16, False) if image.format in ("PNG", "PPM") else (32, True)


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(source))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Damaged metadata is no reason to lose the picture.
        return 1


def _unreadable(error: Exception) -> UnreadableImageError:
    if isinstance(error, Image.UnidentifiedImageError):
        return UnreadableImageError("Pillow does not recognise it as an image")
    text = str(error).strip().rstrip(".") or type(error).__name__
    return UnreadableImageError(text)
