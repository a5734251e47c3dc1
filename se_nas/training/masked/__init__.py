"""Masked networks: one network of constant shape that can become any candidate of a space."""

from se_nas.training.masked.capacity import Capacity, MaskGroup, mask_group
from se_nas.training.masked.first_weights import FirstWeights
from se_nas.training.masked.network import MaskedNetwork
from se_nas.training.masked.padding import keeps_padding, why_padding_breaks
from se_nas.training.masked.place import Place

__all__ = [
    "Capacity",
    "FirstWeights",
    "MaskGroup",
    "MaskedNetwork",
    "Place",
    "keeps_padding",
    "mask_group",
    "why_padding_breaks",
]
