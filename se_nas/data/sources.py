"""Where images come from: scikit-learn's digits, timm's readers, and what ``timm.data.create_dataset``
knows.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from se_nas.data.image_data import Samples
from se_nas.errors import DataError, nearest
from se_nas.plugins import Plugins

PREFIXES = ("torch/", "hfds/", "wds/")
MAX_STREAMED = 2 * 1024**3
"""Bytes of decoded images that a streamed set (wds) may have: it cannot be read by index, so it is kept in
memory.
"""

_MIRROR_CHANGES_CLASS = ("digits", "mnist", "kmnist", "qmnist", "emnist", "svhn")
_TRAIN, _VAL = ("train", "training"), ("val", "validation", "valid")
_TORCH_WITH_TEST = tuple(
    f"torch/{each}" for each in ("cifar10", "cifar100", "mnist", "kmnist", "qmnist", "fashion_mnist")
)


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
    """Images of one of timm's readers: a folder or a tar of class folders, or a Hugging Face data set."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        mapping: dict[str, int] = getattr(reader, "class_to_idx", None) or reader.class_name_to_idx
        self.class_names = tuple(str(name) for name in sorted(mapping, key=lambda name: mapping[name]))
        if hasattr(reader, "iter_targets") and not hasattr(reader, "samples"):
            targets = list(reader.iter_targets())
        else:
            # A tar's reader has an array of labels, a folder's has (path, label) pairs.
            in_tar = hasattr(reader, "targets")
            targets = reader.targets if in_tar else [label for _, label in reader.samples]
        self.labels = np.asarray(targets, dtype=np.int64)
        self._process = os.getpid()

    def read(self, index: int) -> Image.Image:
        self._leave_parent()
        with self._reader[index][0] as stream:
            return Image.open(stream).convert("RGB")

    def name(self, index: int) -> str:
        return Path(self._reader.filename(index) or str(index)).as_posix()

    def payload(self, index: int) -> bytes:
        self._leave_parent()
        with self._reader[index][0] as stream:
            return str(stream.seek(0, 2)).encode()

    def close(self) -> None:
        """Close the tars that timm's reader keeps open; the next read opens them again."""
        for tar in self._tars():
            if tar.tf is not None:
                tar.tf.close()
            tar.reset()

    __del__ = close

    def _leave_parent(self) -> None:
        """Open tars anew in a forked process: an inherited file would share its position with the parent."""
        if self._process != os.getpid():
            self._process = os.getpid()
            for tar in self._tars():
                tar.reset()

    def _tars(self) -> Iterator[Any]:
        state = getattr(getattr(self, "_reader", None), "tar_state", {})
        for tar in state.values() if isinstance(state, dict) else [state]:
            yield from (*tar.children.values(), tar)


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
        return image.convert("RGB")

    def name(self, index: int) -> str:
        return f"{self._name}/{index}"

    def payload(self, index: int) -> bytes:
        return self.read(index).tobytes()


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


NAMES = Plugins(option="data", built_in={"digits": Digits}, group="se_nas.data", error=DataError)


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
        return _open_named(name, split, root)
    path = Path(name).expanduser()
    if not path.exists():
        known = known_data()
        raise DataError(
            f"data {name!r} is neither a folder or tar of class folders nor a known data set."
            f" Known: {', '.join(known)}, or torch/NAME, hfds/NAME, wds/FOLDER.{nearest(name, known)}"
        )
    if path.is_file() and path.suffix != ".tar":
        raise DataError(f"data {name!r} is a file but no .tar; give a folder or a tar of class folders.")
    return _open_path(path, class_names)


def find_splits(name: str) -> tuple[str, str | None, str | None]:
    """Training, validation and test data behind one name, the latter None where there are none.

    A folder that holds nothing but splits (``train``, ``val``, ``test`` as folders or tars) names them; a
    data set of torchvision has its own test images.
    """
    if name.lower() in _TORCH_WITH_TEST:
        return name, None, f"{name}:test"
    path = Path(name).expanduser()
    if not path.is_dir():
        return name, None, None
    children = [child for child in path.iterdir() if child.is_dir() or child.suffix == ".tar"]
    found = {child.name.removesuffix(".tar"): str(child) for child in children}
    if not found or not set(found) <= {*_TRAIN, *_VAL, "test"}:
        return name, None, None
    train, val = (next((found[key] for key in keys if key in found), None) for keys in (_TRAIN, _VAL))
    if train is None:
        raise DataError(
            f"{name!r} has {', '.join(sorted(found))} but no training images (a folder"
            f" or tar named {' or '.join(_TRAIN)})."
        )
    return train, val, found.get("test")


def keeps_class_mirrored(name: str) -> bool:
    """Whether a left-right flip is a fair augmentation of this data set."""
    return name.removeprefix("torch/").lower() not in _MIRROR_CHANGES_CLASS


def known_data() -> list[str]:
    """Names that ``load_data`` takes besides paths and prefixed names: built in and from entry points."""
    return NAMES.names()


def _open_path(path: Path, class_names: tuple[str, ...] | None) -> Samples:
    from timm.data.readers import create_reader

    class_map = {name: index for index, name in enumerate(class_names)} if class_names else None
    try:
        return ReaderSamples(create_reader("", root=str(path), class_map=class_map))
    except (RuntimeError, ValueError, tarfile.TarError, OSError) as error:
        raise DataError(
            f"no images were found in {str(path)!r}: {str(error).strip() or 'it is empty'}"
        ) from error


def _open_named(name: str, split: str, root: str | None) -> Samples:
    from timm.data import create_dataset

    prefix = name.partition("/")[0].lower()
    if prefix == "wds":
        folder: str | None = name.partition("/")[2]
        if not Path(str(folder)).is_dir():
            raise DataError(f"data {name!r}: {folder!r} is no folder of shards.")
    else:
        folder = root or (None if prefix == "hfds" else str(Path("~/.cache/se-nas").expanduser()))
    try:
        dataset = create_dataset(name, root=folder, split=split, download=prefix == "torch")
        if prefix == "torch":
            return TorchvisionSamples(dataset, name)
        return ReaderSamples(dataset.reader) if prefix == "hfds" else StreamedSamples(dataset, name)
    except ImportError as error:
        raise DataError(f"data {name!r} needs a package that is not installed: {error}.") from error
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"data {name!r} (split {split!r}) cannot be opened: {type(error).__name__}: {error}"
        ) from error
