"""Labelled images: read once, split, fingerprinted, and kept in memory where they are small."""

from se_nas.data.image_data import ImageData, Images
from se_nas.data.load import load_data
from se_nas.data.sources import known_data

__all__ = ["ImageData", "Images", "known_data", "load_data"]
