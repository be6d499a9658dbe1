"""Padding, ε, preprocessing and labels of a file's network: what is given, stated or has to be assumed."""

from dataclasses import dataclass, replace
from pathlib import Path

from effnet.metadata import Labels, Numerics, Preprocess
from effnet.weights import key_maps
from effnet.weights.detect import Detection
from effnet.weights.formats import Checkpoint


@dataclass(frozen=True)
class Settled:
    """What a network's metadata say, and notes for the user on where that comes from."""

    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    notes: tuple[str, ...] = ()


def settle(
    path: Path,
    checkpoint: Checkpoint,
    found: Detection,
    numerics: Numerics | None = None,
    preprocess: Preprocess | None = None,
) -> Settled:
    """Return numerics, preprocessing and labels of the network ``found`` in the file ``path``.

    ``numerics`` and ``preprocess`` are given by the user and come first; then what the file states; else the layout's
    defaults are assumed.
    """
    defaults = key_maps.LAYOUTS[found.layout]
    numerics_source = "given" if numerics else "stated by the file" if checkpoint.numerics else "assumed"
    preprocess_source = "given" if preprocess else "partly stated by the file" if checkpoint.preprocess else "assumed"
    numerics = numerics or checkpoint.numerics or defaults.numerics(found.arch)
    preprocess = preprocess or replace(defaults.preprocess(found.arch), **checkpoint.preprocess)
    if len(preprocess.mean) != found.channels:  # grey, RGBA: the stem says so, and no default does
        preprocess = preprocess.with_channels(found.channels)
    note = (
        f"{found.describe()}, detected from names and shapes; {numerics_source}: {numerics.describe()}; "
        f"{preprocess_source}: images {preprocess.describe()}"
    )
    return Settled(numerics, preprocess, checkpoint.labels, (note,))
