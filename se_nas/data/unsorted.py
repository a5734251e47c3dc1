"""Images that lie in one folder, with their classes in a file: what to do, as the end of a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

from se_nas.data.listing import Listing

_IMAGENET = re.compile(r"ILSVRC\d*_(val|test)_\d+\.", re.IGNORECASE)
_LABELS = re.compile(
    r"(annotation|class|label|solution|truth|target).*\.(csv|json|mat|tsv|txt|xml)$", re.IGNORECASE
)
WHERE = "(docs/data.md, Unsorted images)"


def how_to_sort(listing: Listing) -> str:
    """ "; sort them into ...", by what the images are called and which files lie beside them; "" if nothing tells."""
    split = next((found[1] for file in listing.images if (found := _IMAGENET.match(_last(file.name)))), None)
    if split is not None and split.lower() == "test":
        return "; ImageNet's test images have no labels, so leave them out"
    labels = next((left.name for left in listing.left_out if _LABELS.search(_last(left.name))), None)
    if labels is not None:
        return f"; their classes seem to be in {labels!r}: sort them into one folder per class {WHERE}"
    if split is not None:
        return f"; sort ImageNet's validation images into one folder per class {WHERE}"
    return ""


def only_folder(listing: Listing, class_names: Iterable[str]) -> str | None:
    """The folder that holds all images of a listing, if it is none of the classes."""
    folders = [folder for folder in listing.tree if folder]
    return folders[0] if len(folders) == 1 and folders[0] not in class_names else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]
