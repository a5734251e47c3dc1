"""What a run found: the front with its uncertainty, as tables, pictures and a page, and runs compared."""

from se_nas.report.candidates import Candidate, Objective, Reading
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.picks import Pick, pick
from se_nas.report.tables import candidates_csv, front_table, summary

__all__ = [
    "Candidate",
    "Objective",
    "ParetoReport",
    "Pick",
    "Reading",
    "candidates_csv",
    "front_table",
    "pick",
    "summary",
]
