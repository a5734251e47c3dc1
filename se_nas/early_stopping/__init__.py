"""Rules that stop a hopeless candidate early, and the driver that applies one.

They know of se_nas only ``errors`` and ``pareto``: to them a candidate is a number, its costs and a curve. A new
rule is a class in a new file (`rule.Rule`) and a row of `RULES`.
"""

from se_nas.early_stopping.base import RULES, EarlyStopping, rungs_of
from se_nas.early_stopping.records import RECORD, Candidate, MemoryTable, Record, StudyTable, Table
from se_nas.early_stopping.rule import Decision, Rule

__all__ = [
    "RECORD",
    "RULES",
    "Candidate",
    "Decision",
    "EarlyStopping",
    "MemoryTable",
    "Record",
    "Rule",
    "StudyTable",
    "Table",
    "rungs_of",
]
