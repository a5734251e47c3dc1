"""The trials of a search as runs of TensorBoard, MLflow or Weights & Biases."""

from se_nas.study.tracking.base import RETRAINED, RunLogger, StudyFacts
from se_nas.study.tracking.choice import RUN_LOGGERS, check_log, make_feeds, make_loggers

__all__ = ["RETRAINED", "RUN_LOGGERS", "RunLogger", "StudyFacts", "check_log", "make_feeds", "make_loggers"]
