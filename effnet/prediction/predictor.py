"""Pictures into labels and probabilities, or into embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.record import choice, whole
from effnet.contract import Preprocess
from effnet.data.ahead import ahead
from effnet.data.pixels import Fitted, PictureError, Source, pixels
from effnet.engines.eager import Eager, Floats
from effnet.net import EfficientNet
from effnet.weights import load

BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """What one picture shows: the likeliest labels with their probabilities, or why it could not be read."""

    picture: str
    labels: tuple[str, ...] = ()  # likeliest first
    probabilities: tuple[float, ...] = ()
    error: str = ""

    @property
    def label(self) -> str:
        """The likeliest label; empty where the picture could not be read."""
        return self.labels[0] if self.labels else ""

    @property
    def probability(self) -> float:
        """The likeliest label's probability; 0 where the picture could not be read."""
        return self.probabilities[0] if self.probabilities else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``{"picture": …, "labels": [{"label": …, "probability": …}, …]}`` or ``{"picture", "error"}``."""
        if self.error:
            return {"picture": self.picture, "error": self.error}
        pairs = zip(self.labels, self.probabilities, strict=True)
        return {"picture": self.picture, "labels": [{"label": name, "probability": share} for name, share in pairs]}


class Predictor:
    """A model ready for pictures: ``Predictor("model.safetensors")(["cat.jpg"])``.

    ``source`` is a file of weights, a run's folder or a network. JPEGs are decoded at reduced scale unless
    ``decode="exact"``. Raises ``ValueError`` for a network that has no classifier (its embeddings can be had all the
    same), is not for RGB, or for an unknown engine.
    """

    def __init__(
        self,
        source: str | Path | EfficientNet,
        engine: str = "auto",
        device: str | None = None,
        decode: str = "reduced",
        batch: int = BATCH,
    ) -> None:
        choice("engine", engine, ("auto", "eager"))
        whole("batch", batch, 1)
        model = source if isinstance(source, EfficientNet) else load(source)
        for_rgb(model.channels)
        self.arch, self.labels, self.classes, self.batch = model.arch, model.labels, model.classes, batch
        self.preprocess = replace(model.preprocess, decode=decode)
        self._engine = Eager(model, device)

    def __call__(self, pictures: Source | Iterable[Source], top: int = 5) -> list[Prediction]:
        """The predictions of paths, PIL images, files' bytes or uint8 arrays (H, W, 3), in order."""
        named = ((_name(source, index), source) for index, source in enumerate(_several(pictures)))
        return list(self.stream(named, top))

    def stream(self, named: Iterable[tuple[str, Source | PictureError]], top: int = 5) -> Iterator[Prediction]:
        """The same one by one, of (name, picture) pairs, for as many as there are: memory stays bounded."""
        whole("top", top, 1)
        if not self.classes:
            raise ValueError("this network has no classifier: ask for embeddings, or train a head on your pictures")
        for name, row in self._outputs(self._engine.run, named):
            if isinstance(row, PictureError):
                yield Prediction(name, error=str(row))
                continue
            shares = softmax(row)
            best = np.argsort(-shares, kind="stable")[:top]
            yield Prediction(name, tuple(self.labels.name(int(i)) for i in best), tuple(float(shares[i]) for i in best))

    def embeddings(
        self, named: Iterable[tuple[str, Source | PictureError]]
    ) -> Iterator[tuple[str, Floats | PictureError]]:
        """(name, float32 (head channels,)) of (name, picture) pairs, or the error in the vector's place."""
        return self._outputs(self._engine.embed, named)

    def _outputs(
        self, compute: Callable[[Fitted], Floats], named: Iterable[tuple[str, Source | PictureError]]
    ) -> Iterator[tuple[str, Floats | PictureError]]:
        return outputs(compute, named, self.preprocess, self.batch)


def _several(pictures: Source | Iterable[Source]) -> list[Source]:
    """The pictures as a list; arrays of fewer than four axes are one picture, as (N, H, W, 3) are several."""
    if isinstance(pictures, (str, Path, bytes, Image.Image)):
        return [pictures]
    return [pictures] if isinstance(pictures, np.ndarray) and pictures.ndim < 4 else list(pictures)


def _name(source: Source, index: int) -> str:
    return str(source) if isinstance(source, (str, Path)) else f"picture {index + 1}"
