"""Weights of a plain backbone in the files that trainers write."""

from se_nas.checkpoints.files import checkpoint_file, fingerprint
from se_nas.checkpoints.loading import load_checkpoint, load_weights, read_checkpoint, start_new_classifier
from se_nas.checkpoints.matching import Checkpoint

__all__ = [
    "Checkpoint",
    "checkpoint_file",
    "fingerprint",
    "load_checkpoint",
    "load_weights",
    "read_checkpoint",
    "start_new_classifier",
]
