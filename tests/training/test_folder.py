"""A run's result is read back as it was, whatever the kind of its labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from effnet.evaluation import Judged, score, score_labels, score_values
from effnet.training.folder import Result, RunFolder

LOGITS = np.array([[1.0, -2.0], [-1.0, 3.0], [2.0, 1.0]])
FOUND = (
    score(LOGITS, np.array([0, 1, 1]), ("a", "b"), ("1", "2", "3")),
    score_labels(LOGITS, np.array([[1, 0], [0, 1], [1, 0]], bool), ("a", "b"), ("1", "2", "3")),
    score_values(LOGITS, LOGITS + 0.5, ("a", "b"), ("1", "2", "3")),
)


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.kind)
def test_there_and_back(found: Judged, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    result = Result(folder.model, "fine-tuned", {"val": found}, (), None, ("x: damaged",))
    folder.finish(result)
    assert folder.result() == result
    said = json.loads((tmp_path / "result.json").read_text())
    assert (said["figure"], said["pictures"]) == (list(found.headline), 3)
    assert ("top1" in said) == (found.kind == "one")
