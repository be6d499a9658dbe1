"""What one picture shows, and how it is read off a network's answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.serde import check_choice, check_int
from effnet.data.image_io import ImageError, ImageSource, InputImage, LazyImage
from effnet.metadata import Labels, Preprocess
from effnet.prediction.pipeline import DEFAULT_BATCH_SIZE, require_rgb, run_batches
from effnet.prediction.tta import TTA_MODES, tta_preprocess, tta_views
from effnet.runtime import autotune
from effnet.runtime.autotune import ENGINE_FILES, LazyModel
from effnet.runtime.base import ENGINE_KINDS, PRECISIONS, Engine, FloatArray, installed_engines, resolve_threads
from effnet.runtime.io_spec import is_exported
from effnet.tasks import task_of

if TYPE_CHECKING:
    from effnet.net import EfficientNet


@dataclass(frozen=True)
class Prediction:
    """What one picture shows, by the kind of the model's labels, or why it could not be read.

    "classification": the likeliest labels with their probabilities. "multilabel": the labels whose own probability is `RIGHT` or more,
    likeliest first, and none where none is. "regression": ``values`` by their names, and no labels.
    """

    image: str
    labels: tuple[str, ...] = ()  # likeliest first
    probabilities: tuple[float, ...] = ()
    error: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """The likeliest label; empty where there is none, or the picture could not be read."""
        return self.labels[0] if self.labels else ""

    @property
    def probability(self) -> float:
        """The likeliest label's probability; 0 where there is none, or the picture could not be read."""
        return self.probabilities[0] if self.probabilities else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``{"picture": …, "labels": [{"label": …, "probability": …}, …]}`` or ``{"picture", "error"}``.

        Of values ``{"picture": …, "values": {"age": 41.2, …}}``.
        """
        if self.error:
            return {"picture": self.image, "error": self.error}
        if self.values:
            return {"picture": self.image, "values": dict(self.values)}
        pairs = zip(self.labels, self.probabilities, strict=True)
        return {"picture": self.image, "labels": [{"label": name, "probability": share} for name, share in pairs]}


def to_prediction(image: str, row: NDArray[np.float64], labels: Labels) -> Prediction:
    """The prediction that a row (2, top) of `likeliest` means."""
    names = [labels.name(int(index)) for index in row[0]]
    task = task_of(labels.task)
    if not task.has_probabilities:
        return Prediction(
            image, values={name: _shortest_float(value) for name, value in zip(names, row[1], strict=True)}
        )
    count = task.count_predicted(row[1])
    return Prediction(image, tuple(names[:count]), tuple(row[1, :count].tolist()))


def _shortest_float(value: float) -> float:
    """``value`` as the fewest digits that mean the same float32: 41.2, not 41.20000076293945."""
    return float(str(np.float32(value)))


# Pictures into labels and probabilities, or into embeddings.


# Pictures after which a contest of engines pays: it takes a few seconds, and what is kept by then is rarely half as
# fast as its winner.
AUTOTUNE_AFTER_IMAGES = 256


TUNE_BATCH_AFTER_IMAGES = 2_000  # after which it pays to find out how many at once are best


GPU_DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd")  # of NVIDIA's driver, of AMD's


class EngineOptions(TypedDict):
    """What is passed on to every engine."""

    precision: str
    threads: int | None


class Predictor:
    """A model ready for pictures: ``Predictor("model.safetensors")(["cat.jpg"])``.

    ``source`` is a file of weights, a card, a run's folder, a network, or a file that `export` wrote. JPEGs are decoded
    at reduced scale unless ``decode="exact"``. ``batch``: pictures computed at once, where there are so many; None
    for what turns out to be the engine's best. ``views``: "mirror" or "crops" for the mean answer over several views of
    a picture (see `effnet.prediction.tta`), of which embeddings are not.
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
        batch_size: int | None = None,
        precision: str = "float32",
        threads: int | None = None,
        tta: str = "none",
    ) -> None:
        check_choice("engine", engine, ("auto", *ENGINE_KINDS))
        check_choice("precision", precision, PRECISIONS)
        check_choice("views", tta, TTA_MODES)
        check_int("batch", 1 if batch_size is None else batch_size, 1)
        resolve_threads(threads)
        if device is not None and engine not in ("auto", "eager"):
            raise ValueError(f"{engine} runs on the CPU: leave the device out, or use eager")
        self.tta = tta
        self.batch_size, self._tunes_batch_size = batch_size or DEFAULT_BATCH_SIZE, batch_size is None
        # What is done to a network later does not reach this one
        self._network = LazyModel(source if isinstance(source, (str, Path)) else deepcopy(source))
        self._engine_options: EngineOptions = {"precision": precision, "threads": threads}
        self._lock, self._images_seen = Lock(), 0
        exported = isinstance(source, (str, Path)) and is_exported(Path(source))
        self._autotunes = engine == "auto" and device is None and not exported and not _gpu_present()
        if exported or engine not in ("auto", "eager"):
            self._engine = autotune.engine(source, engine, **self._engine_options)
        else:
            self._engine = self._first_engine(device)
        self._chosen_engines: dict[int, Engine] = {}  # by the number of pictures at once
        contract = self._engine.metadata
        require_rgb(len(contract.preprocess.mean))
        self.arch, self.labels, self.classes = contract.arch, contract.labels, self._engine.classes
        self.preprocess = replace(contract.preprocess, decode=decode)

    def __call__(self, images: ImageSource | Iterable[ImageSource], top: int = 5) -> list[Prediction]:
        """The predictions of paths, PIL images, files' bytes or uint8 arrays (H, W, 3), in order."""
        given = name_images(images)
        return list(self._predict(given, top, single=len(given) == 1))

    def stream(
        self, named_images: Iterable[tuple[str, ImageSource | ImageError]], top: int = 5
    ) -> Iterator[Prediction]:
        """The same one by one, of (name, picture) pairs, for as many as there are: memory stays bounded."""
        return self._predict(named_images, top)

    def embeddings(
        self, named_images: Iterable[tuple[str, ImageSource | ImageError]]
    ) -> Iterator[tuple[str, FloatArray | ImageError]]:
        """(name, float32 (head channels,)) of (name, picture) pairs, or the error in the vector's place."""

        def compute(pictures: InputImage) -> FloatArray:
            return self._engine_for(self.batch_size, len(pictures)).embed(pictures)

        return run_batches(compute, named_images, self.preprocess, lambda: self.batch_size)

    @property
    def engine(self) -> Engine:
        """What computes at the moment."""
        return self._chosen_engines.get(self.batch_size) or self._chosen_engines.get(1) or self._engine

    def choose_engine(self, batch_size: int | None = None) -> Engine:
        """The fastest engine for so many pictures at once, from now on: remembered, or found in a contest of seconds.

        Without ``batch`` it is for many, and how many of them at once is found too unless it was said.
        Where the engine was named, or is PyTorch on a device, or a file, it stays, and is made ready for so many.
        """
        if batch_size is None:
            if self._tunes_batch_size:
                self._tune_batch_size()
            return self.choose_engine(self.batch_size)
        if batch_size not in self._chosen_engines:
            if self._autotunes:
                self._chosen_engines[batch_size] = autotune.engine(
                    self._network, batch_size=batch_size, **self._engine_options
                )
            else:
                self._engine.prepare(batch_size)
                self._chosen_engines[batch_size] = self._engine
        return self._chosen_engines[batch_size]

    def _tune_batch_size(self) -> None:
        """From here on so many pictures at once, in that engine, as gives the most a second; a few seconds, once."""
        self._tunes_batch_size = False
        engines = [
            self.choose_engine(batch) for batch in (1, self.batch_size)
        ]  # what is best for one may be so for many
        measured = [autotune.get_throughput(self._network, engine) for engine in engines]
        found, engine = max(zip(measured, engines, strict=True), key=lambda pair: pair[0].max_images_per_second)
        self.batch_size = found.best_batch_size
        engine.prepare(self.batch_size)
        self._chosen_engines[self.batch_size] = engine

    def cache_for_engines(self) -> None:
        """Leaves a file of the network for engines, so that the next start needs no PyTorch."""
        if self._autotunes and self._engine.kind == "eager" and not self._chosen_engines:
            self._engine = self._file_engine() or self._engine

    def _first_engine(self, device: str | None) -> Engine:
        """What answers the first picture: a file that is kept of the network, else PyTorch."""
        if self._autotunes and (found := autotune.open_cached_engine(self._network.key, **self._engine_options)):
            return found
        from effnet.runtime.torch import EagerEngine

        return EagerEngine(self._network.network, "cpu" if self._autotunes else device, **self._engine_options)

    def _engine_for(self, batch_size: int, images: int) -> Engine:
        """The engine for the next ``pictures``, with ``batch`` at once, by how many there have been."""
        with self._lock:
            if self._tunes_batch_size and batch_size > 1 and self._images_seen >= TUNE_BATCH_AFTER_IMAGES:
                self._tune_batch_size()
            elif batch_size not in self._chosen_engines and self._images_seen >= AUTOTUNE_AFTER_IMAGES:
                self.choose_engine(batch_size)
            elif not self._chosen_engines and self._images_seen and self._engine.kind == "eager":
                self.cache_for_engines()
            self._images_seen += images
            return self._chosen_engines.get(batch_size, self._engine)

    def _file_engine(self) -> Engine | None:
        """The network as a file, in the first engine that is here and agrees; None where there is none."""
        for kind in (kind for kind in ENGINE_FILES if kind in installed_engines()):
            with suppress(ValueError, OSError, ImportError):
                return self._network.verified_engine(kind, "float32", self._engine_options["threads"])
        return None

    def predict_scores(
        self, named_images: Iterable[tuple[str, ImageSource | ImageError]]
    ) -> Iterator[tuple[str, NDArray[np.float64] | ImageError]]:
        """(name, float64 (classes,)) of (name, picture) pairs: probabilities, or values, by the kind of the labels."""
        return run_batches(self.compute, named_images, self.tta_preprocess, lambda: self.batch_size)

    @property
    def tta_preprocess(self) -> Preprocess:
        """How `compute` wants its pictures prepared."""
        return tta_preprocess(self.preprocess, self.tta)

    def compute(self, images: InputImage, single: bool = False) -> NDArray[np.float64]:
        """Pictures as `prepared` -> float64 (N, classes), as `answers` gives them; NaN where a logit is not finite."""
        if not self.classes:
            raise ValueError("this network has no classifier: ask for embeddings, or train a head on your pictures")
        views = list(tta_views(images, self.preprocess, self.tta))
        run = self._engine_for(1 if single else self.batch_size, len(images)).run
        found = np.zeros((len(images), self.classes))
        for seen in views:
            logits = run(seen)
            found += task_of(self.labels.task).activate(logits)
            found[~np.isfinite(logits).all(1)] = np.nan
        return found / len(views)

    def _predict(
        self, named_images: Iterable[tuple[str, ImageSource | ImageError]], top: int, single: bool = False
    ) -> Iterator[Prediction]:
        check_int("top", top, 1)
        if not self.classes:
            raise ValueError("this network has no classifier: ask for embeddings, or train a head on your pictures")

        def compute(pictures: InputImage) -> NDArray[np.float64]:
            return task_of(self.labels.task).top_k(self.compute(pictures, single), top)

        for name, row in run_batches(compute, named_images, self.tta_preprocess, lambda: self.batch_size):
            yield (
                Prediction(name, error=str(row))
                if isinstance(row, ImageError)
                else to_prediction(name, row, self.labels)
            )


def _gpu_present() -> bool:
    """Whether torch would compute on a GPU by itself, without asking torch; one that is hidden does not count."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(map(os.path.exists, GPU_DEVICE_FILES))


def name_images(images: ImageSource | Iterable[ImageSource]) -> list[tuple[str, ImageSource]]:
    """Pictures with names; arrays of fewer than four axes are one picture, as (N, H, W, 3) are several."""
    given: list[ImageSource]
    if isinstance(images, (str, Path, bytes, Image.Image, LazyImage)):
        given = [images]
    else:
        given = [images] if isinstance(images, np.ndarray) and images.ndim < 4 else list(images)
    return [(_source_name(source, index), source) for index, source in enumerate(given)]


def _source_name(source: ImageSource, index: int) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return source.name if isinstance(source, LazyImage) else f"picture {index + 1}"
