"""How good a model is on labelled pictures, whatever the kind of their labels."""

from effnet.evaluation.evaluator import AnyEvaluation as AnyEvaluation
from effnet.evaluation.evaluator import class_columns as class_columns
from effnet.evaluation.evaluator import evaluate as evaluate
from effnet.evaluation.evaluator import pick_split as pick_split
from effnet.evaluation.evaluator import read_evaluation as read_evaluation
from effnet.evaluation.metrics import CalibrationBin as CalibrationBin
from effnet.evaluation.metrics import ClassMetrics as ClassMetrics
from effnet.evaluation.metrics import Evaluation as Evaluation
from effnet.evaluation.metrics import LabelMetrics as LabelMetrics
from effnet.evaluation.metrics import LabelMistake as LabelMistake
from effnet.evaluation.metrics import LargeError as LargeError
from effnet.evaluation.metrics import Mistake as Mistake
from effnet.evaluation.metrics import MultiLabelEvaluation as MultiLabelEvaluation
from effnet.evaluation.metrics import PrimaryMetric as PrimaryMetric
from effnet.evaluation.metrics import RegressionEvaluation as RegressionEvaluation
from effnet.evaluation.metrics import UncertainImage as UncertainImage
from effnet.evaluation.metrics import ValueMetrics as ValueMetrics
from effnet.evaluation.metrics import calibration_bins as calibration_bins
from effnet.evaluation.metrics import calibration_error as calibration_error
from effnet.evaluation.metrics import score_classes as score_classes
from effnet.evaluation.metrics import score_multilabel as score_multilabel
from effnet.evaluation.metrics import score_regression as score_regression
