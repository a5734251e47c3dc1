"""``config.json`` of an exported folder: the layout of timm models on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from se_nas.architecture import Architecture
from se_nas.exporting.registration import NAME

# Origin and reading of timm's weights say nothing about the exported ones.
_OF_OTHER_WEIGHTS = (
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "tag", "custom_load", "license"),
    *("description", "origin_url", "paper_name", "paper_ids", "notes", "label_offset", "label_names"),
    *(
        "label_descriptions",
        "test_input_size",
        "test_crop_pct",
        "test_pool_size",
        "pool_size",
        "architecture",
    ),
)
_OF_THE_DATA = ("input_size", "mean", "std", "interpolation", "crop_pct")


def hub_config(architecture: Architecture, model: nn.Module, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready content of ``config.json``; preprocessing from ``metadata``, or else that of timm's backbone."""
    config = {
        name: value
        for name, value in dict(getattr(model, "pretrained_cfg", None) or {}).items()
        if name not in _OF_OTHER_WEIGHTS and value is not None
    }
    if metadata.get("input_size"):
        # The network was trained and measured on whole images of this size.
        config["crop_pct"] = 1.0
    config |= {name: metadata[name] for name in _OF_THE_DATA if metadata.get(name) is not None}
    config["num_classes"] = model.num_classes
    root: dict[str, Any] = {
        "architecture": NAME,
        "num_classes": model.num_classes,
        "num_features": getattr(model, "num_features", None),
        "model_args": {"architecture": architecture.to_dict()},
        "pretrained_cfg": config,
    }
    if metadata.get("class_names"):
        root["label_names"] = list(metadata["class_names"])
    return root
