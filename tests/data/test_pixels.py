"""Every Pillow mode against numpy: greys of 16 and 32 bits, transparency, orientation."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from image_files import write_images
from PIL import Image

from se_nas.data import load_data
from se_nas.data.pixels import (
    UnreadableImageError,
    decode,
    image_suffixes,
    image_warnings,
    to_rgb,
    upright_size,
    verify,
)
from se_nas.errors import DataError

SHAPE = st.tuples(st.integers(1, 5), st.integers(1, 6))


def bytes_of(*channels):
    """Arrays of one shape, of one or several channels."""
    depth = len(channels)
    return SHAPE.flatmap(lambda shape: arrays(np.uint8, (*shape, depth) if depth > 1 else shape))


def saved(image, suffix, **options):
    stream = BytesIO()
    image.save(stream, suffix, **options)
    stream.seek(0)
    return stream


def rgb(image):
    assert image.mode == "RGB"
    return np.asarray(image)


def on_white(colour, alpha):
    """Composition on white, rounded to the nearest level."""
    share = alpha.astype(np.float64)[..., None] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def grey(levels):
    return np.stack([levels.astype(np.uint8)] * 3, -1)


@given(bytes_of("L"))
def test_l(levels):
    assert (rgb(to_rgb(Image.fromarray(levels))) == grey(levels)).all()


@given(bytes_of("1"))
def test_1(levels):
    image = Image.fromarray(levels).point(lambda level: 255 * (level > 127), "1")
    assert (rgb(to_rgb(image)) == grey(255 * (levels > 127))).all()


@given(bytes_of(*"RGB"))
def test_rgb_and_rgbx(colours):
    image = Image.fromarray(colours)
    assert (rgb(to_rgb(image)) == colours).all()
    assert (rgb(to_rgb(image.convert("RGBX"))) == colours).all()


@given(bytes_of(*"RGBA"))
def test_rgba(pixels):
    assert (rgb(to_rgb(Image.fromarray(pixels))) == on_white(pixels[..., :3], pixels[..., 3])).all()


@given(bytes_of(*"LA"))
def test_la(pixels):
    image = Image.merge("LA", [Image.fromarray(pixels[..., 0]), Image.fromarray(pixels[..., 1])])
    assert (rgb(to_rgb(image)) == on_white(grey(pixels[..., 0]), pixels[..., 1])).all()


@pytest.mark.parametrize("mode", ["RGBa", "La"])
@given(data=st.data())
def test_premultiplied(mode, data):
    """An opaque pixel keeps its colour, and one without opacity is white."""
    count = 4 if mode == "RGBa" else 2
    pixels = data.draw(bytes_of(*range(count)))
    pixels[..., -1] = 255 * (pixels[..., -1] > 127)
    pixels[..., :-1] *= pixels[..., -1:] > 0
    image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    colour = pixels[..., :3] if count == 4 else grey(pixels[..., 0])
    assert (rgb(to_rgb(image)) == on_white(colour, pixels[..., -1])).all()


@given(bytes_of(*"CMYK"))
def test_cmyk(inks):
    cyan_magenta_yellow, black = inks[..., :3].astype(int), inks[..., 3:].astype(int)
    expected = (255 - cyan_magenta_yellow) * (255 - black) / 255
    image = Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes())
    assert np.abs(rgb(to_rgb(image)) - expected).max() <= 1


@given(bytes_of(*"YCC"))
def test_ycbcr(pixels):
    luma, blue, red = np.moveaxis(pixels.astype(np.float64), -1, 0)
    blue, red = blue - 128, red - 128
    expected = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1
    ).clip(0, 255)
    image = Image.frombytes("YCbCr", pixels.shape[1::-1], pixels.tobytes())
    assert np.abs(rgb(to_rgb(image)) - expected).max() <= 1.5


@given(bytes_of(*"HSV"))
def test_hsv(pixels):
    hue, saturation, value = np.moveaxis(pixels.astype(np.float64), -1, 0)
    sector = (np.array([5, 3, 1])[:, None, None] + hue / 255 * 6) % 6
    expected = value - value * saturation / 255 * np.minimum(sector, 4 - sector).clip(0, 1)
    image = Image.frombytes("HSV", pixels.shape[1::-1], pixels.tobytes())
    assert np.abs(rgb(to_rgb(image)) - np.moveaxis(expected, 0, -1)).max() <= 2


def test_lab():
    """CIE L*a*b* under D50 to sRGB, by the formulas of the standards (Bradford's matrix for the white)."""
    levels = np.array([[[0, 0, 0], [255, 0, 0], [128, 0, 0], [138, 30, 20], [180, -20, 40]]])
    lightness, red, yellow = levels[..., 0] * 100 / 255, levels[..., 1], levels[..., 2]
    middle = (lightness + 16) / 116
    cubes = np.stack([middle + red / 500, middle, middle - yellow / 200], -1)
    ratio = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29))
    to_linear = np.array(
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    linear = (ratio * [0.96422, 1, 0.82521]) @ to_linear.T
    expected = np.where(linear > 0.0031308, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055, 12.92 * linear)
    image = Image.frombytes("LAB", (5, 1), levels.astype(np.uint8).tobytes())
    assert np.abs(rgb(to_rgb(image)) - 255 * expected.clip(0, 1)).max() <= 2


@given(bytes_of("P"), st.data())
def test_palette(indices, data):
    palette = np.frombuffer(data.draw(st.binary(min_size=768, max_size=768)), np.uint8).reshape(256, 3)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    assert (rgb(to_rgb(image)) == palette[indices]).all()
    opacity = np.frombuffer(data.draw(st.binary(min_size=256, max_size=256)), np.uint8)
    image.info["transparency"] = opacity.tobytes()
    assert (rgb(to_rgb(image)) == on_white(palette[indices], opacity[indices])).all()


@given(bytes_of("P"), bytes_of("A"))
def test_palette_with_alpha(indices, alpha):
    alpha = np.resize(alpha, indices.shape)
    palette = np.arange(256, dtype=np.uint8)[::-1, None].repeat(3, 1)
    base = Image.fromarray(indices)
    base.putpalette(palette.tobytes())
    image = base.convert("PA")
    image.putalpha(Image.fromarray(alpha))
    assert (rgb(to_rgb(image)) == on_white(palette[indices], alpha)).all()


@given(bytes_of("L"), st.integers(0, 255))
def test_transparent_level_of_a_grey(levels, key):
    image = decode(saved(Image.fromarray(levels), "PNG", transparency=key))
    assert (rgb(image) == grey(np.where(levels == key, 255, levels))).all()


def test_transparent_colour():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert rgb(decode(saved(image, "PNG", transparency=(1, 2, 3)))).tolist() == [[[255] * 3, [4, 5, 6]]]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
@given(levels=SHAPE.flatmap(lambda shape: arrays(np.uint16, shape)))
def test_16_bits(mode, levels):
    order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, levels.shape[::-1], levels.astype(order).tobytes())
    assert (rgb(to_rgb(image)) == grey(levels >> 8)).all()


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "PPM", "JPEG2000"])
@given(levels=arrays(np.uint16, (8, 9)))
@settings(max_examples=20)
def test_16_bits_from_a_file(suffix, levels):
    options = {"irreversible": False} if suffix == "JPEG2000" else {}
    assert (rgb(decode(saved(Image.fromarray(levels), suffix, **options))) == grey(levels >> 8)).all()


def tiff(levels, bits, sample_format):
    """An uncompressed TIFF, little end first, written by hand."""
    height, width = levels.shape
    content = levels.astype(f"<{'ui'[sample_format - 1]}{bits // 8}").tobytes()
    tags = [
        (256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 12 * 10 + 4), (277, 1),
        (278, height), (279, len(content)), (339, sample_format),
    ]  # fmt: skip
    entries = b"".join(np.array([tag, 4, 1, 0, value, 0], "<u2").tobytes() for tag, value in tags)
    return BytesIO(b"II*\0\x08\0\0\0" + np.uint16(len(tags)).tobytes() + entries + bytes(4) + content)


@pytest.mark.parametrize(
    ("bits", "sample_format", "shift"), [(16, 1, 8), (16, 2, 7), (32, 1, 24), (32, 2, 23)]
)
@given(data=st.data())
@settings(max_examples=30)
def test_integers_of_a_tiff_are_scaled_by_their_range(bits, sample_format, shift, data):
    highest = 2 ** (bits - (sample_format == 2)) - 1
    levels = data.draw(arrays(np.int64, (3, 4), elements=st.integers(0, highest)))
    levels[0, 0] = highest
    assert (rgb(decode(tiff(levels, bits, sample_format))) == grey(levels >> shift)).all()


def test_levels_below_zero_are_refused():
    with pytest.raises(UnreadableImageError, match="level -3"):
        decode(tiff(np.array([[-3, 5]]), 16, 2))


def test_32_bits_that_would_all_be_black_are_refused():
    with pytest.raises(UnreadableImageError, match=r"end at 40000 of 2\^31.*black"):
        decode(saved(Image.fromarray(np.array([[10_000, 40_000]], np.int32)), "TIFF"))
    assert (rgb(decode(saved(Image.fromarray(np.zeros((2, 2), np.int32)), "TIFF"))) == 0).all()


@pytest.mark.parametrize("input_size", [20, 128])
def test_floats_are_left_out_and_named(tmp_path, input_size):
    write_images(tmp_path)
    image = Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20))
    image.save(tmp_path / "cat" / "float.tif")
    image.save(tmp_path / "dog" / "float.png", "TIFF")
    data = load_data(str(tmp_path), input_size=input_size)
    assert data.skipped == ("cat/float.tif", "dog/float.png")
    assert all("floating-point" in reason for reason in data.reasons)
    with pytest.raises(DataError, match=r"float\.tif' cannot be decoded: its pixels are floating-point"):
        load_data(str(tmp_path), input_size=input_size, strict=True)


def test_classes_of_16_bit_greys_stay_apart(tmp_path):
    for name, level in (("dark", 10_000), ("light", 40_000)):
        (tmp_path / name).mkdir()
        for index in range(5):
            levels = np.full((20, 20), level + index, dtype=np.uint16)
            Image.fromarray(levels).save(tmp_path / name / f"{index}.png")
    data = load_data(str(tmp_path))
    assert data.skipped == ()
    for label, level in enumerate((10_000 >> 8, 40_000 >> 8)):
        assert (data.train.pixels[data.train.labels == label] == level).all()


TURNED = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", TURNED)
def test_orientation(suffix, orientation):
    """What the EXIF standard says of the 0th row and column."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8], pixels[:8, 8:], pixels[8:, :8] = 255, 160, 80
    exif = Image.Exif()
    exif[274] = orientation
    options = {"WEBP": {"lossless": True}, "MPO": {"quality": 100}}.get(suffix, {})
    stream = saved(Image.fromarray(pixels), suffix, exif=exif.tobytes(), **options)
    expected = TURNED[orientation](pixels)
    assert np.abs(rgb(decode(stream)).astype(int) - expected).max() <= (3 if suffix == "MPO" else 0)
    assert upright_size(stream) == expected.shape[:2]


def test_damaged_metadata_loses_no_picture():
    image = Image.new("RGB", (4, 4), "red")
    stream = saved(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with image_warnings():
        assert rgb(decode(stream)).shape == (4, 4, 3)


def test_suffixes_are_those_of_pictures():
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm"} <= image_suffixes()
    assert not {".eps", ".pdf", ".mpg", ".h5", ".txt", ".npy", ""} & image_suffixes()


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_whole_file_passes_and_a_truncated_one_does_not(suffix):
    draws = np.random.default_rng(0)
    content = saved(Image.fromarray(draws.integers(0, 256, (40, 40, 3), np.uint8)), suffix).getvalue()
    assert verify(BytesIO(content)) == (len(content), content[-4096:])
    for part in (content[: len(content) // 2], content[:20], b""):
        with pytest.raises(UnreadableImageError):
            verify(BytesIO(part))
        with pytest.raises(UnreadableImageError):
            decode(BytesIO(part))


def test_no_program_is_run_for_a_picture():
    """PostScript under the name of a picture would be drawn by Ghostscript."""
    with pytest.raises(UnreadableImageError, match="Pillow does not recognise it as an image"):
        decode(saved(Image.new("RGB", (4, 4)), "EPS"))


def test_a_jpeg_with_more_behind_its_end_passes():
    content = saved(Image.new("RGB", (40, 40)), "JPEG").getvalue() + b"a camera's trailer"
    assert verify(BytesIO(content))[0] == len(content)
