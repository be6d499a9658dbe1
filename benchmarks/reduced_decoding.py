"""Decoding JPEGs at reduced scale: how often it changes a prediction, and how much time it saves.

    python benchmarks/reduced_decoding.py PHOTOS WEIGHTS

PHOTOS is a folder with train/ and val/ class folders. At each input size a linear probe is fitted to exactly decoded
training photos; all photos are then classified from exactly decoded pixels and from reduced ones. Decoding is timed
separately, interleaved. A photo is only reduced if its short side is at least four times the required size, so small
input sizes stand in for large photos.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from effnet.data import load_input, open_data
from effnet.metadata import Preprocess, default_crop_fraction
from effnet.prediction.batched_inference import run_batches
from effnet.runtime.torch import EagerEngine
from effnet.tasks import softmax
from effnet.timing import time_interleaved
from effnet.training.linear_probe import fit_linear_probe
from effnet.training.validation import Targets
from effnet.weights import load

SIZES = (224, 72, 64, 48)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("weights", type=Path)
    options = parser.parse_args()
    splits, model = open_data(options.photos), load(options.weights)
    assert splits.train is not None
    assert splits.val is not None
    items = [*splits.train.items, *splits.val.items]
    print(
        "| size | photos reduced | top-1 differs | largest difference in probability | exact ms | reduced ms | ratio |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in SIZES:
        exact = replace(model.preprocess, size=(size, size), crop_fraction=default_crop_fraction(size))
        reduced = replace(exact, decode="reduced")
        engine = EagerEngine(model)

        def features(preprocess: Preprocess, engine: EagerEngine = engine) -> np.ndarray:
            images = ((item.name, item.image) for item in items)
            return np.stack([row for _, row in run_batches(engine.embed, images, preprocess)])  # type: ignore[arg-type]

        embeddings = {"exact": features(exact), "reduced": features(reduced)}
        count = len(splits.train)
        probe = fit_linear_probe(embeddings["exact"][:count], Targets.from_dataset(splits.train))
        logits = {name: probe.logits(rows) for name, rows in embeddings.items()}
        probabilities = {name: softmax(rows) for name, rows in logits.items()}
        differ = int((logits["exact"].argmax(1) != logits["reduced"].argmax(1)).sum())
        changed = int((embeddings["exact"] != embeddings["reduced"]).any(1).sum())
        sample = [item.image for item in items[::8]]
        timings = time_interleaved(
            {
                "exact": lambda exact=exact, sample=sample: [load_input(image, exact) for image in sample],
                "reduced": lambda reduced=reduced, sample=sample: [load_input(image, reduced) for image in sample],
            },
            runs=7,
            warmup_runs=1,
        )
        milliseconds = {name: timing.seconds / len(sample) * 1e3 for name, timing in timings.items()}
        print(
            f"| {size} | {changed} of {len(items)} | {differ} "
            f"| {np.abs(probabilities['exact'] - probabilities['reduced']).max():.3f} "
            f"| {milliseconds['exact']:.2f} | {milliseconds['reduced']:.2f} "
            f"| {milliseconds['reduced'] / milliseconds['exact']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
