"""A run's result is read back as it was, whatever the kind of its labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from effnet.evaluation import AnyEvaluation
from effnet.evaluation.metrics import score_classes, score_multilabel, score_regression
from effnet.training.run_dir import RunDir, TrainResult

LOGITS = np.array([[1.0, -2.0], [-1.0, 3.0], [2.0, 1.0]])
EVALUATIONS = (
    score_classes(LOGITS, np.array([0, 1, 1]), ("a", "b"), ("1", "2", "3")),
    score_multilabel(LOGITS, np.array([[1, 0], [0, 1], [1, 0]], bool), ("a", "b"), ("1", "2", "3")),
    score_regression(LOGITS, LOGITS + 0.5, ("a", "b"), ("1", "2", "3")),
)


@pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda evaluation: evaluation.task)
def test_result_round_trip(evaluation: AnyEvaluation, tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    result = TrainResult(folder.model, "fine-tuned", {"val": evaluation}, (), None, ("x: damaged",))
    folder.write_result(result)
    assert folder.read_result() == result
    saved = json.loads((tmp_path / "result.json").read_text())
    assert (saved["primary_metric"], saved["images"]) == (list(evaluation.primary_metric), 3)
    assert ("top1" in saved) == (evaluation.task == "classification")
