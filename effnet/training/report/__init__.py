"""The page that a run leaves: how it went, how good its model is, what it cost, and of what it was made."""

from effnet.training.report.report import write_report as write_report
from effnet.training.report.run_sections import DataSummary as DataSummary
from effnet.training.report.run_sections import RunCost as RunCost
