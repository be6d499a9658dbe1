"""The run as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from effnet.net import EfficientNet
from effnet.training.folder import Result
from effnet.training.recipe import Recipe


def write_report(path: Path, result: Result, model: EfficientNet, recipe: Recipe) -> None:
    """Writes the page."""
    path.write_text(f"{recipe.name} {model.arch.name} {result.evaluation.top1}")
