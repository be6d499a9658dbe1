"""Evaluation of a model on labeled images: metrics, most confident errors, calibration."""

from effnet.evaluation import evaluator, metrics

AnyEvaluation = evaluator.AnyEvaluation
Evaluation = metrics.Evaluation
MultiLabelEvaluation = metrics.MultiLabelEvaluation
RegressionEvaluation = metrics.RegressionEvaluation
evaluate = evaluator.evaluate
read_evaluation = evaluator.read_evaluation
