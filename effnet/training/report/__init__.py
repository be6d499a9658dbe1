"""The report of a run, an HTML page: course, quality, cost and settings."""

from effnet.training.report.report import RunCost as RunCost
from effnet.training.report.report import write_report as write_report
