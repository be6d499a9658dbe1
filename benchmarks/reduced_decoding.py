"""How often does decoding JPEGs at reduced scale change a prediction, and what does it save?

    python benchmarks/decode.py PHOTOS WEIGHTS

PHOTOS is a folder with train/ and val/ class folders. For each size a linear head is fitted on exactly decoded training
photos; all photos are then classified twice, from exact and from reduced pixels. Decoding is timed separately, both
ways interleaved. Photos whose short side is below four times the network's are never reduced, so small sizes stand in
for large photos.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from effnet.data import load_input, open_data
from effnet.metadata import Preprocess, default_crop_fraction
from effnet.prediction.pipeline import run_batches
from effnet.runtime.torch import EagerEngine
from effnet.timing import time_interleaved
from effnet.training.linear_probe import fit_linear_probe
from effnet.training.validation import Targets
from effnet.weights import load

SIZES = (224, 72, 64, 48)


def main(photos: str, weights: str) -> None:
    splits, model = open_data(photos), load(weights)
    assert splits.train is not None
    assert splits.val is not None
    items = [*splits.train.items, *splits.val.items]
    print("| size | photos reduced | top-1 differs | largest change of probability | exact ms | reduced ms | ratio |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in SIZES:
        exact = replace(model.preprocess, size=(size, size), crop_fraction=default_crop_fraction(size))
        reduced = replace(exact, decode="reduced")
        engine = EagerEngine(model)

        def features(preprocess: Preprocess, engine: EagerEngine = engine) -> np.ndarray:
            named = ((item.name, item.image) for item in items)
            return np.stack([row for _, row in run_batches(engine.embed, named, preprocess)])  # type: ignore[arg-type]

        rows = {"exact": features(exact), "reduced": features(reduced)}
        count = len(splits.train)
        probe = fit_linear_probe(rows["exact"][:count], Targets.from_dataset(splits.train))
        logits = {name: probe.logits(found) for name, found in rows.items()}
        shares = {name: np.exp(found) / np.exp(found).sum(1, keepdims=True) for name, found in logits.items()}
        differ = int((logits["exact"].argmax(1) != logits["reduced"].argmax(1)).sum())
        changed = int((rows["exact"] != rows["reduced"]).any(1).sum())
        some = [item.image for item in items[::8]]
        timing = time_interleaved(
            {
                "exact": lambda exact=exact, some=some: [load_input(image, exact) for image in some],
                "reduced": lambda reduced=reduced, some=some: [load_input(image, reduced) for image in some],
            },
            runs=7,
            warmup_runs=1,
        )
        milliseconds = {name: found.seconds / len(some) * 1e3 for name, found in timing.items()}
        print(
            f"| {size} | {changed} of {len(items)} | {differ} "
            f"| {np.abs(shares['exact'] - shares['reduced']).max():.3f} "
            f"| {milliseconds['exact']:.2f} | {milliseconds['reduced']:.2f} "
            f"| {milliseconds['reduced'] / milliseconds['exact']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
