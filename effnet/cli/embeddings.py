"""Embeddings into a file: NumPy's ``.npz`` (``names``, ``embeddings``) or ``.csv`` (a line a picture)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from effnet.weights.atomic import replacing


def write(path: Path, rows: Iterable[tuple[str, Any]]) -> None:
    """Writes (name, float32 vector) pairs to ``path``, whole or not at all; a ``.csv`` as they come."""
    with replacing(path) as beside:
        if path.suffix == ".csv":
            with beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file, lineterminator="\n")
                for index, (name, row) in enumerate(rows):
                    if not index:
                        writer.writerow(("picture", *(f"e{number}" for number in range(len(row)))))
                    writer.writerow((name, *(f"{value:.8g}" for value in row)))
        else:
            pairs = list(rows)
            with beside.open("wb") as binary:  # given a name, NumPy would add a suffix to it
                np.savez(
                    binary,
                    names=np.array([name for name, _ in pairs], dtype=np.str_),
                    embeddings=np.array([row for _, row in pairs], dtype=np.float32),
                )
