"""The images of a configuration, as the backbone and its weights want them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import resolve_model_data_config

from se_nas.backbones.input_sizes import smallest_input
from se_nas.data import ImageData, load_data
from se_nas.errors import BackboneError
from se_nas.study.config import SearchConfig

if TYPE_CHECKING:
    from torch import nn

TEST_FRACTION = 0.1


def load_images(
    config: SearchConfig,
    *,
    split_test: bool = True,
    check: bool = True,
    checked: Callable[[int, int], None] | None = None,
) -> ImageData:
    """The images of a configuration, at the smallest size from theirs on that the backbone takes.

    Without ``split_test`` there is a test split only if the data or the configuration has one; without ``check``
    the images are counted, but not read.
    """

    def load(size: int | None) -> ImageData:
        return load_data(
            config.data,
            val_data=config.val_data,
            test_data=config.test_data,
            input_size=size,
            test_fraction=None if config.test_data or not split_test else TEST_FRACTION,
            split_seed=config.split_seed,
            strict=config.strict,
            check=check,
            progress=checked,
        )

    data = load(config.input_size)
    smallest = smallest_input(config.backbone, data.input_size[1], **config.timm_kwargs)
    if smallest == data.input_size[1]:
        return data
    if config.input_size is not None:
        raise BackboneError(
            f"{config.backbone} cannot take --input-size {config.input_size}; the next that it takes is {smallest}."
        )
    return load(smallest)


def as_weights_want(data: ImageData, config: SearchConfig, model: nn.Module) -> ImageData:
    """The images, normalised as in the training that the configuration's weights come from, if from any."""
    if not config.fine_tunes:
        return data
    own = resolve_model_data_config(model)
    return data.with_statistics(own["mean"], own["std"])


def data_facts(data: ImageData) -> dict[str, Any]:
    """What a manifest says about the data."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "num_train": len(data.train),
        "num_val": len(data.val),
        "num_test": 0 if data.test is None else len(data.test),
        "split_seed": data.split_seed,
        "skipped": list(data.skipped),
        "reasons": list(data.reasons),
        "remarks": list(data.remarks),
        "mean": list(data.mean),
        "std": list(data.std),
    }
