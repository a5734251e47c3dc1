"""What a run found: the front with its uncertainty, as tables, pictures and a page; and comparisons of runs."""

from se_nas.objectives import Objective
from se_nas.report.candidates import Candidate
from se_nas.report.comparison import Comparison, compare
from se_nas.report.comparison_page import write_comparison
from se_nas.report.figures import write_figures
from se_nas.report.page import write_html
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.picks import Pick, pick
from se_nas.report.run import Run, open_run
from se_nas.report.tables import candidates_csv, front_table, summary

__all__ = [
    "Candidate",
    "Comparison",
    "Objective",
    "ParetoReport",
    "Pick",
    "Run",
    "candidates_csv",
    "compare",
    "front_table",
    "open_run",
    "pick",
    "summary",
    "write_comparison",
    "write_figures",
    "write_html",
]
