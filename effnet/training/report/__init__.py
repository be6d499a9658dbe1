"""The page that a run leaves: how it went, how good its model is, what it cost, and of what it was made."""

from effnet.training.report.cost import Cost as Cost
from effnet.training.report.data import Data as Data
from effnet.training.report.write import write_report as write_report
