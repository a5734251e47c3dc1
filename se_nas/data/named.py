"""Data sets by name: scikit-learn's digits, and what ``timm.data.create_dataset`` knows."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from se_nas.data.image_data import Payload, Samples
from se_nas.data.pixels import decode, to_rgb, verify
from se_nas.errors import DataError

MAX_STREAMED = 2 * 1024**3
"""Bytes of decoded images that a streamed set (wds) may have: it cannot be read by index, so it is kept in
memory.
"""


class Digits:
    """scikit-learn's digits: 1,797 real scans of 8 x 8 pixels, part of the library, nothing is downloaded."""

    def __init__(self) -> None:
        levels, self.labels = _digits()
        self.class_names = tuple(str(digit) for digit in range(10))
        self._images = np.rint(levels * (255 / 16)).astype(np.uint8)

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index]).convert("RGB")

    def name(self, index: int) -> str:
        return f"digits/{index}"

    def payload(self, index: int) -> Payload:
        return Payload.of(self._images[index].tobytes())


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Levels from 0 to 16, shape (images, 8, 8), and labels, shape (images,)."""
    # The file itself: to import scikit-learn takes two seconds and 50 MB, because it imports pandas.
    found = find_spec("sklearn")
    folder = Path(found.origin or "").parent if found is not None else Path()
    path = folder / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        table = np.loadtxt(path, delimiter=",", dtype=np.int64)
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, np.asarray(bunch.target, dtype=np.int64)


class HuggingFaceSamples:
    """A Hugging Face data set through timm's reader, which gives images as encoded bytes."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        mapping: dict[str, int] = reader.class_to_idx
        self.class_names = tuple(str(name) for name in sorted(mapping, key=lambda name: mapping[name]))
        self.labels = np.asarray(list(reader.iter_targets()), dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        with self._reader[index][0] as stream:
            return decode(stream)

    def name(self, index: int) -> str:
        return Path(self._reader.filename(index) or str(index)).as_posix()

    def payload(self, index: int) -> Payload:
        with self._reader[index][0] as stream:
            return Payload.of_file(*verify(stream))


class TorchvisionSamples:
    """A data set of torchvision: labels in ``targets`` or ``labels``, items (PIL image, label)."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        labels = next((getattr(dataset, key) for key in ("targets", "labels") if hasattr(dataset, key)), None)
        if labels is None:
            labels = [dataset[index][1] for index in range(len(dataset))]
        self.labels = np.asarray(labels, dtype=np.int64)
        names = getattr(dataset, "classes", None) or range(int(self.labels.max()) + 1)
        self.class_names = tuple(str(each) for each in names)

    def read(self, index: int) -> Image.Image:
        image: Image.Image = self._dataset[index][0]
        return to_rgb(image)

    def name(self, index: int) -> str:
        return f"{self._name}/{index}"

    def payload(self, index: int) -> Payload:
        return Payload.of(self.read(index).tobytes())


class StreamedSamples:
    """A set that can only be read in order (webdataset shards), kept decoded in memory."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._name = name
        self._images: list[Image.Image] = []
        labels, size = [], 0
        for image, label in dataset:
            picture = to_rgb(image) if isinstance(image, Image.Image) else decode(BytesIO(image))
            self._images.append(picture)
            labels.append(int(label))
            size += 3 * picture.width * picture.height
            if size > MAX_STREAMED:
                raise DataError(
                    f"{name!r} is larger than {MAX_STREAMED >> 30} GiB of decoded images, and shards cannot"
                    " be read by index; unpack it into a folder or a tar of class folders."
                )
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = tuple(str(index) for index in range(int(self.labels.max()) + 1)) if labels else ()

    def read(self, index: int) -> Image.Image:
        return self._images[index]

    def name(self, index: int) -> str:
        return f"{self._name}/{index}"

    def payload(self, index: int) -> Payload:
        return Payload.of(self._images[index].tobytes())


def open_named(name: str, split: str, root: str | None) -> Samples:
    """A data set of ``create_dataset``: "torch/NAME", "hfds/NAME" or "wds/FOLDER".

    Raises:
        DataError: the name is unknown, a package is missing, or the set cannot be opened.
    """
    from timm.data import create_dataset

    prefix = name.partition("/")[0].lower()
    if prefix == "wds":
        folder: str | None = name.partition("/")[2]
        if not Path(str(folder)).is_dir():
            raise DataError(f"data {name!r}: {folder!r} is not a folder of shards.")
    else:
        folder = root or (None if prefix == "hfds" else str(Path("~/.cache/se-nas").expanduser()))
    try:
        dataset = create_dataset(name, root=folder, split=split, download=prefix == "torch")
        if prefix == "torch":
            return TorchvisionSamples(dataset, name)
        return HuggingFaceSamples(dataset.reader) if prefix == "hfds" else StreamedSamples(dataset, name)
    except ImportError as error:
        raise DataError(f"data {name!r} needs a package that is not installed: {error}.") from error
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"data {name!r} (split {split!r}) cannot be opened: {type(error).__name__}: {error}"
        ) from error
