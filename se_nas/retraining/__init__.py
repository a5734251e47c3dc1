"""``retrain``: a pick of a run on a full recipe, and the network that comes out as an exported folder."""

from se_nas.retraining.session import retrain

__all__ = ["retrain"]
