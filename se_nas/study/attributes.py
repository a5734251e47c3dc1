"""User attributes that a run gives its trials, besides those of the sampler and of early stopping."""

from se_nas.run.study_file import ROW

__all__ = ["BASELINE", "FIXED", "IMAGES", "IMPORTED", "LOSS", "OVER_LIMIT", "ROW"]

FIXED = "architecture"
"""The architecture, if the trial's parameters do not say which it is."""
BASELINE = "baseline"
"""The name of the baseline that was queued."""
IMAGES = "se_nas:correct"
"""The file that says which validation images were classified correctly, in base64: of the final trainings of a shared
study, whose workers may have no folder in common."""
IMPORTED = "imported_from"
"""The run from which a reading was taken over."""
OVER_LIMIT = "over_limit"
"""True for an architecture that was proposed and not trained, because it is over a limit."""
LOSS = "se_nas:loss"
"""The validation loss of a training that ran to its end in the search: evidence about its accuracy."""
