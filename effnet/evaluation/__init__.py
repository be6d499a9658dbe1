"""How good a model is on labelled pictures, whatever the kind of their labels."""

from effnet.evaluation.calibration import Bin as Bin
from effnet.evaluation.calibration import calibration_bins as calibration_bins
from effnet.evaluation.calibration import calibration_error as calibration_error
from effnet.evaluation.headline import Headline as Headline
from effnet.evaluation.one import ClassScore as ClassScore
from effnet.evaluation.one import Evaluation as Evaluation
from effnet.evaluation.one import Mistake as Mistake
from effnet.evaluation.one import Uncertain as Uncertain
from effnet.evaluation.one import score as score
from effnet.evaluation.run import Judged as Judged
from effnet.evaluation.run import class_columns as class_columns
from effnet.evaluation.run import evaluate as evaluate
from effnet.evaluation.run import pick_split as pick_split
from effnet.evaluation.run import read as read
from effnet.evaluation.several import LabelScore as LabelScore
from effnet.evaluation.several import LabelsEvaluation as LabelsEvaluation
from effnet.evaluation.several import WrongLabel as WrongLabel
from effnet.evaluation.several import score_labels as score_labels
from effnet.evaluation.values import Miss as Miss
from effnet.evaluation.values import ValueScore as ValueScore
from effnet.evaluation.values import ValuesEvaluation as ValuesEvaluation
from effnet.evaluation.values import score_values as score_values
