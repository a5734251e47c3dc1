"""Rules that stop a hopeless candidate early, and the driver that applies one.

They know nothing of se_nas but ``errors`` and ``pareto``: a candidate is a number, its costs and a curve.
"""

from se_nas.early_stopping.base import Decision, EarlyStopping, rungs_of
from se_nas.early_stopping.records import Candidate, MemoryTable, Record, StudyTable, Table

__all__ = [
    "Candidate",
    "Decision",
    "EarlyStopping",
    "MemoryTable",
    "Record",
    "StudyTable",
    "Table",
    "rungs_of",
]
