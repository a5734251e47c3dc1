"""Where images come from: scikit-learn's digits, timm's readers, and what ``timm.data.create_dataset``
knows.
"""

from __future__ import annotations

import os
import tarfile
from importlib.metadata import EntryPoint, entry_points
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from se_nas.data.image_data import Samples
from se_nas.errors import DataError, nearest

ENTRY_POINTS = "se_nas.data"
PREFIXES = ("torch/", "hfds/", "wds/")
MAX_STREAMED = 2 * 1024**3
"""Bytes of decoded images that a streamed set (wds) may have: it cannot be read by index, so it is kept in
memory.
"""

_MIRROR_CHANGES_CLASS = ("digits", "mnist", "kmnist", "qmnist", "emnist", "svhn")
_TEST_SPLITS = ("val", "validation", "valid", "test")


class Digits:
    """scikit-learn's digits: 1,797 real scans of 8 x 8 pixels, part of the library, nothing is downloaded."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self.class_names = tuple(str(name) for name in bunch.target_names)
        self.labels = np.asarray(bunch.target, dtype=np.int64)
        self._images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index]).convert("RGB")

    def name(self, index: int) -> str:
        return f"digits/{index}"

    def payload(self, index: int) -> bytes:
        return self._images[index].tobytes()


class ReaderSamples:
    """A folder or a tar of class folders, through timm's readers."""

    def __init__(self, path: Path, class_names: tuple[str, ...] | None = None) -> None:
        from timm.data.readers import create_reader

        class_map = {name: index for index, name in enumerate(class_names)} if class_names else None
        try:
            self._reader = create_reader("", root=str(path), class_map=class_map)
        except (RuntimeError, ValueError, tarfile.TarError, OSError) as error:
            raise DataError(
                f"no images were found in {str(path)!r}: {str(error).strip() or 'it is empty'}"
            ) from error
        mapping: dict[str, int] = (
            getattr(self._reader, "class_to_idx", None) or self._reader.class_name_to_idx
        )
        self.class_names = tuple(sorted(mapping, key=lambda name: mapping[name]))
        self._process = os.getpid()
        # A folder's reader has (path, label) pairs, a tar's has two arrays.
        targets = getattr(self._reader, "targets", None)
        if targets is None:
            targets = [label for _, label in self._reader.samples]
        self.labels = np.asarray(targets, dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        self._leave_parent()
        with self._reader[index][0] as stream:
            return Image.open(stream).convert("RGB")

    def name(self, index: int) -> str:
        return Path(self._reader.filename(index)).as_posix()

    def payload(self, index: int) -> bytes:
        self._leave_parent()
        with self._reader[index][0] as stream:
            return str(stream.seek(0, 2)).encode()

    def _leave_parent(self) -> None:
        """Open tars anew in a forked process: an inherited file would share its position with the parent."""
        if self._process != os.getpid():
            self._process = os.getpid()
            state = getattr(self._reader, "tar_state", {})
            for tar in state.values() if isinstance(state, dict) else [state]:
                tar.reset()
                for child in tar.children.values():
                    child.reset()


class DatasetSamples:
    """A data set by index that gives (PIL image, label): torchvision's and Hugging Face's through timm."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        labels = getattr(dataset, "targets", None)
        if labels is None:
            labels = getattr(dataset, "labels", None)
        if labels is None and hasattr(dataset, "reader") and hasattr(dataset.reader, "dataset"):
            labels = dataset.reader.dataset[dataset.reader.label_key]
        if labels is None:
            labels = [dataset[index][1] for index in range(len(dataset))]
        self.labels = np.asarray(labels, dtype=np.int64)
        names = getattr(dataset, "classes", None)
        if not names:
            names = [str(index) for index in range(int(self.labels.max()) + 1)] if len(self.labels) else []
        self.class_names = tuple(str(name) for name in names)

    def read(self, index: int) -> Image.Image:
        image = self._dataset[index][0]
        return image.convert("RGB")

    def name(self, index: int) -> str:
        return f"{self._name}/{index}"

    def payload(self, index: int) -> bytes:
        return b""


class StreamedSamples:
    """A set that can only be read in order (webdataset shards), kept compressed-free in memory."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._name = name
        self._images: list[Image.Image] = []
        labels, size = [], 0
        for image, label in dataset:
            picture = image if isinstance(image, Image.Image) else Image.open(BytesIO(image))
            self._images.append(picture.convert("RGB"))
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

    def payload(self, index: int) -> bytes:
        return self._images[index].tobytes()


def open_source(
    name: str, *, split: str = "train", root: str | None = None, class_names: tuple[str, ...] | None = None
) -> Samples:
    """Labelled images by name or path.

    Raises:
        DataError: the name is unknown, the path is missing, or it holds no image.
    """
    if name == "digits":
        return Digits()
    if name.lower().startswith(PREFIXES):
        return _timm_dataset(name, split, root)
    path = Path(name).expanduser()
    if not path.exists():
        known = known_data()
        raise DataError(
            f"data {name!r} is neither a folder or tar of class folders nor a known data set."
            f" Known: {', '.join(known)}, or torch/NAME, hfds/NAME, wds/PATTERN.{nearest(name, known)}"
        )
    if path.is_file() and path.suffix != ".tar":
        raise DataError(f"data {name!r} is a file but no .tar; give a folder or a tar of class folders.")
    return ReaderSamples(path, class_names)


def split_folders(name: str) -> tuple[str, str | None]:
    """(training, validation or None) paths: a folder may hold ``train`` and ``val`` folders or tars."""
    path = Path(name).expanduser()
    if not path.is_dir():
        return name, None
    found = {
        child.stem: str(child)
        for child in sorted(path.iterdir())
        if child.stem in ("train", "training", *_TEST_SPLITS) and (child.is_dir() or child.suffix == ".tar")
    }
    train = found.get("train") or found.get("training")
    if train is None:
        return name, None
    return train, next((found[split] for split in _TEST_SPLITS if split in found), None)


def keeps_class_mirrored(name: str) -> bool:
    """Whether a left-right flip is a fair augmentation of this data set."""
    return name.removeprefix("torch/").lower() not in _MIRROR_CHANGES_CLASS


def known_data() -> list[str]:
    """Names that ``load_data`` takes besides paths and prefixed names: built in and from entry points."""
    return ["digits", *sorted(point.name for point in entry_points(group=ENTRY_POINTS))]


def plugin(name: str) -> EntryPoint | None:
    """The entry point that a package registered under this name."""
    return next((point for point in entry_points(group=ENTRY_POINTS) if point.name == name), None)


def _timm_dataset(name: str, split: str, root: str | None) -> Samples:
    from timm.data import create_dataset

    prefix = name.partition("/")[0].lower()
    folder = root or (str(Path("~/.cache/se-nas").expanduser()) if prefix != "hfds" else None)
    try:
        dataset = create_dataset(
            name, root=folder, split=split, download=prefix == "torch", is_training=False
        )
    except ImportError as error:
        raise DataError(f"data {name!r} needs a package that is not installed: {error}.") from error
    except Exception as error:
        raise DataError(f"data {name!r} (split {split!r}) could not be opened: {error}") from error
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and prefix != "wds":
        return DatasetSamples(dataset, name)
    return StreamedSamples(dataset, name)
