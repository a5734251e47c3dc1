"""An exported folder as a network again."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from se_nas.architecture import Architecture
from se_nas.arguments import checked
from se_nas.checkpoints.sealed import load_sealed
from se_nas.errors import CheckpointError, ConfigError, RunError
from se_nas.exporting.package import ARCHITECTURE, CONFIG, WEIGHTS
from se_nas.exporting.timm_entry import create
from se_nas.run import read_json


@checked
def load_exported(path: str | Path) -> nn.Module:
    """The network of an exported folder with its weights, in eval mode; its outputs are those at export.

    Raises:
        RunError: the folder or one of its files is missing or damaged.
        CheckpointError: the weights are damaged, or do not fit the architecture.
    """
    folder = Path(path)
    missing = [name for name in (ARCHITECTURE, CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise RunError(f"{folder} is not an exported network: it has no {', '.join(missing)}.")
    config = read_json(folder / CONFIG)
    cfg = config.get("pretrained_cfg") if isinstance(config, dict) else None
    if not isinstance(cfg, dict):
        raise RunError(f"{folder / CONFIG} is damaged: it lacks pretrained_cfg.")
    try:
        architecture = Architecture.from_dict(read_json(folder / ARCHITECTURE))
    except ConfigError as error:
        raise RunError(f"{folder / ARCHITECTURE} is damaged: {error}") from error
    model = create(architecture=architecture.to_dict(), pretrained_cfg=cfg)
    try:
        model.load_state_dict(load_sealed(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder / WEIGHTS} cannot be read: {error}.") from error
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its architecture: {error}") from error
    return model.eval()
