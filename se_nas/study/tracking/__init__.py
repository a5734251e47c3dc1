"""The trials of a search as runs of TensorBoard, MLflow or Weights & Biases."""

from se_nas.study.tracking.base import RunLogger, StudyFacts
from se_nas.study.tracking.choice import RUN_LOGGERS, check_log

__all__ = ["RUN_LOGGERS", "RunLogger", "StudyFacts", "check_log"]
