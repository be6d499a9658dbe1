"""Pictures into labels and probabilities, or into embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.record import choice, whole
from effnet.contract import Preprocess
from effnet.data.pixels import Fitted, Held, PictureError, Source
from effnet.engines.engine import KINDS, PRECISIONS, Engine, Floats, granted, installed
from effnet.engines.opening import is_exported
from effnet.exporting import choose
from effnet.exporting.origin import FILES, Origin
from effnet.prediction.pipeline import BATCH, answers, for_rgb, outputs
from effnet.prediction.prediction import Prediction, likeliest, told
from effnet.prediction.views import VIEWS, each, prepared

if TYPE_CHECKING:
    from effnet.net import EfficientNet

# Pictures after which a contest of engines pays: it takes a few seconds, and what is kept by then is rarely half as
# fast as its winner.
ENOUGH = 256
MANY = 2_000  # after which it pays to find out how many at once are best

GPUS = ("/dev/nvidiactl", "/dev/kfd")  # of NVIDIA's driver, of AMD's


class Asked(TypedDict):
    """What is passed on to every engine."""

    precision: str
    threads: int | None


class Predictor:
    """A model ready for pictures: ``Predictor("model.safetensors")(["cat.jpg"])``.

    ``source`` is a file of weights, a card, a run's folder, a network, or a file that `export` wrote. JPEGs are decoded
    at reduced scale unless ``decode="exact"``. ``batch``: pictures computed at once, where there are so many; None
    for what turns out to be the engine's best. ``views``: "mirror" or "crops" for the mean answer over several views of
    a picture (see `effnet.prediction.views`), of which embeddings are not.
    ``engine="auto"`` begins with what was fastest here before. A network that was never seen here answers through
    PyTorch at first, through a file made of it after the first pictures, and once there are enough for that to pay, a
    contest decides for good (`settle`). On a GPU, or with ``device``, it is PyTorch all the time. The answers are
    float32's, unless ``precision`` allows another. Several threads may call it.
    Raises ``ValueError`` for a network that is not for RGB, and what `load` and `effnet.engine` raise. A network
    without a classifier gives embeddings only.
    """

    def __init__(
        self,
        source: str | Path | EfficientNet,
        engine: str = "auto",
        device: str | None = None,
        decode: str = "reduced",
        batch: int | None = None,
        precision: str = "float32",
        threads: int | None = None,
        views: str = "none",
    ) -> None:
        choice("engine", engine, ("auto", *KINDS))
        choice("precision", precision, PRECISIONS)
        choice("views", views, VIEWS)
        whole("batch", 1 if batch is None else batch, 1)
        granted(threads)
        if device is not None and engine not in ("auto", "eager"):
            raise ValueError(f"{engine} runs on the CPU: leave the device out, or use eager")
        self.views = views
        self.batch, self._finds_batch = batch or BATCH, batch is None
        # What is done to a network later does not reach this one
        self._network = Origin(source if isinstance(source, (str, Path)) else deepcopy(source))
        self._asked: Asked = {"precision": precision, "threads": threads}
        self._lock, self._seen = Lock(), 0
        exported = isinstance(source, (str, Path)) and is_exported(Path(source))
        self._open = engine == "auto" and device is None and not exported and not _gpu_here()
        if exported or engine not in ("auto", "eager"):
            self._engine = choose.engine(source, engine, **self._asked)
        else:
            self._engine = self._at_once(device)
        self._settled: dict[int, Engine] = {}  # by the number of pictures at once
        contract = self._engine.contract
        for_rgb(len(contract.preprocess.mean))
        self.arch, self.labels, self.classes = contract.arch, contract.labels, self._engine.classes
        self.preprocess = replace(contract.preprocess, decode=decode)

    def __call__(self, pictures: Source | Iterable[Source], top: int = 5) -> list[Prediction]:
        """The predictions of paths, PIL images, files' bytes or uint8 arrays (H, W, 3), in order."""
        given = named_sources(pictures)
        return list(self._predicted(given, top, alone=len(given) == 1))

    def stream(self, named: Iterable[tuple[str, Source | PictureError]], top: int = 5) -> Iterator[Prediction]:
        """The same one by one, of (name, picture) pairs, for as many as there are: memory stays bounded."""
        return self._predicted(named, top)

    def embeddings(
        self, named: Iterable[tuple[str, Source | PictureError]]
    ) -> Iterator[tuple[str, Floats | PictureError]]:
        """(name, float32 (head channels,)) of (name, picture) pairs, or the error in the vector's place."""

        def compute(pictures: Fitted) -> Floats:
            return self._ready(self.batch, len(pictures)).embed(pictures)

        return outputs(compute, named, self.preprocess, lambda: self.batch)

    @property
    def engine(self) -> Engine:
        """What computes at the moment."""
        return self._settled.get(self.batch) or self._settled.get(1) or self._engine

    def settle(self, batch: int | None = None) -> Engine:
        """The fastest engine for so many pictures at once, from now on: remembered, or found in a contest of seconds.

        Without ``batch`` it is for many, and how many of them at once is found too unless it was said.
        Where the engine was named, or is PyTorch on a device, or a file, it stays, and is made ready for so many.
        """
        if batch is None:
            if self._finds_batch:
                self._find_batch()
            return self.settle(self.batch)
        if batch not in self._settled:
            if self._open:
                self._settled[batch] = choose.engine(self._network, batch=batch, **self._asked)
            else:
                self._engine.prepare(batch)
                self._settled[batch] = self._engine
        return self._settled[batch]

    def _find_batch(self) -> None:
        """From here on so many pictures at once, in that engine, as gives the most a second; a few seconds, once."""
        self._finds_batch = False
        engines = [self.settle(batch) for batch in (1, self.batch)]  # what is best for one may be so for many
        measured = [choose.throughput(self._network, engine) for engine in engines]
        found, engine = max(zip(measured, engines, strict=True), key=lambda pair: pair[0].most)
        self.batch = found.best
        engine.prepare(self.batch)
        self._settled[self.batch] = engine

    def keep(self) -> None:
        """Leaves a file of the network for engines, so that the next start needs no PyTorch."""
        if self._open and self._engine.kind == "eager" and not self._settled:
            self._engine = self._filed() or self._engine

    def _at_once(self, device: str | None) -> Engine:
        """What answers the first picture: a file that is kept of the network, else PyTorch."""
        if self._open and (found := choose.at_hand(self._network.key, **self._asked)):
            return found
        from effnet.engines.eager import Eager

        return Eager(self._network.network, "cpu" if self._open else device, **self._asked)

    def _ready(self, batch: int, pictures: int) -> Engine:
        """The engine for the next ``pictures``, with ``batch`` at once, by how many there have been."""
        with self._lock:
            if self._finds_batch and batch > 1 and self._seen >= MANY:
                self._find_batch()
            elif batch not in self._settled and self._seen >= ENOUGH:
                self.settle(batch)
            elif not self._settled and self._seen and self._engine.kind == "eager":
                self.keep()
            self._seen += pictures
            return self._settled.get(batch, self._engine)

    def _filed(self) -> Engine | None:
        """The network as a file, in the first engine that is here and agrees; None where there is none."""
        for kind in (kind for kind in FILES if kind in installed()):
            with suppress(ValueError, OSError, ImportError):
                return self._network.engine(kind, "float32", self._asked["threads"])
        return None

    def answers(
        self, named: Iterable[tuple[str, Source | PictureError]]
    ) -> Iterator[tuple[str, NDArray[np.float64] | PictureError]]:
        """(name, float64 (classes,)) of (name, picture) pairs: probabilities, or values, by the kind of the labels."""
        return outputs(self.compute, named, self.prepared, lambda: self.batch)

    @property
    def prepared(self) -> Preprocess:
        """How `compute` wants its pictures prepared."""
        return prepared(self.preprocess, self.views)

    def compute(self, pictures: Fitted, alone: bool = False) -> NDArray[np.float64]:
        """Pictures as `prepared` -> float64 (N, classes), as `answers` gives them; NaN where a logit is not finite."""
        if not self.classes:
            raise ValueError("this network has no classifier: ask for embeddings, or train a head on your pictures")
        views = list(each(pictures, self.preprocess, self.views))
        run = self._ready(1 if alone else self.batch, len(pictures)).run
        found = np.zeros((len(pictures), self.classes))
        for seen in views:
            logits = run(seen)
            found += answers(logits, self.labels.kind)
            found[~np.isfinite(logits).all(1)] = np.nan
        return found / len(views)

    def _predicted(
        self, named: Iterable[tuple[str, Source | PictureError]], top: int, alone: bool = False
    ) -> Iterator[Prediction]:
        whole("top", top, 1)
        if not self.classes:
            raise ValueError("this network has no classifier: ask for embeddings, or train a head on your pictures")

        def compute(pictures: Fitted) -> NDArray[np.float64]:
            return likeliest(self.compute(pictures, alone), self.labels.kind, top)

        for name, row in outputs(compute, named, self.prepared, lambda: self.batch):
            yield Prediction(name, error=str(row)) if isinstance(row, PictureError) else told(name, row, self.labels)


def _gpu_here() -> bool:
    """Whether torch would compute on a GPU by itself, without asking torch; one that is hidden does not count."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(map(os.path.exists, GPUS))


def named_sources(pictures: Source | Iterable[Source]) -> list[tuple[str, Source]]:
    """Pictures with names; arrays of fewer than four axes are one picture, as (N, H, W, 3) are several."""
    given: list[Source]
    if isinstance(pictures, (str, Path, bytes, Image.Image, Held)):
        given = [pictures]
    else:
        given = [pictures] if isinstance(pictures, np.ndarray) and pictures.ndim < 4 else list(pictures)
    return [(_name(source, index), source) for index, source in enumerate(given)]


def _name(source: Source, index: int) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return source.name if isinstance(source, Held) else f"picture {index + 1}"
