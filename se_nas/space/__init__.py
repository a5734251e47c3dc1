"""Search spaces: read from a file or a shipped name, counted, enumerated, sampled, suggested to Optuna.

A space turns parameters (what a sampler sees) into architectures (what is built). Several parameter
combinations can build one network, so sizes, enumeration and sampling are over distinct architectures.
"""

from se_nas.space._shipped import shipped_spaces
from se_nas.space._space import SearchSpace
from se_nas.space._spec import SpaceSpec

__all__ = ["SearchSpace", "SpaceSpec", "shipped_spaces"]
