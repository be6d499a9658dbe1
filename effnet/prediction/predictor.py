"""Predictor: a model that turns images into labels with probabilities, values, or embeddings."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from effnet.arch.serde import check_choice, check_int
from effnet.data import class_names
from effnet.data.image_io import ImageError, ImageSource, InputImage, LazyImage
from effnet.metadata import Labels, Preprocess
from effnet.prediction import batched_inference
from effnet.prediction import tta as views
from effnet.runtime import autotune, base, foreign_onnx, io_spec
from effnet.tasks import Float64Array, task_of

if TYPE_CHECKING:
    from effnet.net import EfficientNet

# Images after which it pays to time all engines: that takes a few seconds, and the engine in use by then is rarely less
# than half as fast as the winner.
AUTOTUNE_AFTER_IMAGES = 256
TUNE_BATCH_AFTER_IMAGES = 2_000  # after which it pays to find the fastest batch size too

GPU_DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd")  # of NVIDIA's driver, of AMD's


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image, or the error why it could not be read."""

    image: str  # its path, or "image 1"
    # Most likely first. Classification: the `top` classes; multi-label: those of at least one half; regression: none
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)  # regression: by name

    @property
    def label(self) -> str:
        """The most likely label, or "" if there is none."""
        return self.labels[0] if self.labels else ""

    @property
    def probability(self) -> float:
        """The probability of `label`, or 0 if there is none."""
        return self.probabilities[0] if self.probabilities else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON: "image" and "labels" (each with "probability"), "values" or "error"."""
        if self.error:
            return {"image": self.image, "error": self.error}
        if self.values:
            return {"image": self.image, "values": dict(self.values)}
        pairs = zip(self.labels, self.probabilities, strict=True)
        return {"image": self.image, "labels": [{"label": name, "probability": share} for name, share in pairs]}


def to_prediction(image: str, row: Float64Array, labels: Labels) -> Prediction:
    """Make the prediction from a row (2, top) of `effnet.tasks.Task.top_k`."""
    task = task_of(labels.task)
    names = [labels.name(int(index)) for index in row[0]]
    if not task.has_probabilities:
        # With the fewest digits that mean the same float32: 41.2, not 41.20000076293945
        values = (float(str(np.float32(value))) for value in row[1])
        return Prediction(image, values=dict(zip(names, values, strict=True)))
    count = task.count_predicted(row[1])
    return Prediction(image, tuple(names[:count]), tuple(row[1, :count].tolist()))


def to_predictions(
    rows: Iterable[tuple[str, Float64Array | ImageError]], labels: Labels, top: int
) -> Iterator[Prediction]:
    """Make predictions from (name, scores (classes,)) pairs, or errors instead of the scores."""
    task = task_of(labels.task)
    for name, row in rows:
        if isinstance(row, ImageError):
            yield Prediction(name, error=str(row))
        else:
            yield to_prediction(name, task.top_k(row[None], top)[0], labels)


class Predictor:
    """A model ready to predict.

    With ``engine="auto"`` it starts with the engine that was fastest on this machine before. A model never seen here
    starts in PyTorch, moves to an exported file after the first images, and once there are enough images for it to pay,
    all engines are timed and the fastest is used (see `choose_engine`). On a GPU, or with ``device``, it stays in
    PyTorch. It may be called from several threads, pickled (Ray, Spark and multiprocessing do: the other process opens
    it again), and used in a process that was forked.

    Args:
        source: Weights file, model name such as "b0/ra", run directory, network, or file written by `effnet.export`. An
            ONNX classifier of any other program runs as it stands (`effnet.runtime.foreign_onnx.OnnxFile` says how).
        engine: "auto", "eager", "compiled", "native", "onnxruntime", "openvino" or "litert".
        device: PyTorch device; default: the GPU if there is one.
        decode: "exact", or "reduced": JPEGs are decoded at reduced scale, which is faster.
        batch_size: Images computed at once if there are that many; default: whatever turns out to be fastest.
        precision: "float32", or another that the engine supports.
        threads: CPU threads; default: all cores.
        tta: Test-time augmentation: "none", "mirror" or "crops" (see `effnet.prediction.tta`).
        labels: Names of the outputs, instead of the model's own.
        color: What the channels of images are (see `effnet.Preprocess`), instead of what the model states.
        bits: How many bits 16-bit files hold (see `effnet.Preprocess`), instead of what the model states.

    Raises:
        ValueError: If the network takes a number of channels that no image has, and as `effnet.load` and
            `effnet.engine` do.

    Example:
        >>> predict = effnet.Predictor("model.safetensors")
        >>> predict(["cat.jpg", "dog.jpg"], top=3)[0].label
        'cat'
    """

    def __init__(
        self,
        source: "str | Path | EfficientNet | foreign_onnx.OnnxFile",
        engine: str = "auto",
        device: str | None = None,
        decode: str = "reduced",
        batch_size: int | None = None,
        precision: str = "float32",
        threads: int | None = None,
        tta: str = "none",
        labels: Sequence[str] | None = None,
        color: str | None = None,
        bits: int | None = None,
    ) -> None:
        check_choice("engine", engine, ("auto", *base.ENGINE_KINDS))
        check_choice("precision", precision, base.PRECISIONS)
        check_choice("tta", tta, views.TTA_MODES)
        check_int("batch_size", 1 if batch_size is None else batch_size, 1)
        base.resolve_threads(threads)
        source = foreign_onnx.find_runnable(source, engine, device) or source
        foreign = isinstance(source, foreign_onnx.OnnxFile)
        exported = foreign or (isinstance(source, (str, Path)) and io_spec.is_exported(Path(source)))
        if device is not None and engine not in ("auto", "eager"):
            raise ValueError(f"{engine} runs on the CPU: omit the device, or use the eager engine")
        if exported and device not in (None, "cpu"):
            raise ValueError(f"{source} was exported and runs on the CPU: omit the device, or use the weights")
        self.tta = tta
        self.batch_size, self._tunes_batch_size = batch_size or batched_inference.DEFAULT_BATCH_SIZE, batch_size is None
        # A copy: later changes to the caller's network do not reach this one
        source = source if isinstance(source, (str, Path)) else deepcopy(source)
        self._model = autotune.LazyModel(source.path if isinstance(source, foreign_onnx.OnnxFile) else source)
        how = {"decode": decode, "precision": precision, "threads": threads, "color": color, "bits": bits}
        self._made_of: dict[str, Any] = {"source": source, "engine": engine, "device": device, **how}
        # For a process that works elsewhere
        if isinstance(source, foreign_onnx.OnnxFile):
            self._made_of["source"] = replace(source, path=source.path.absolute())
        elif isinstance(source, (str, Path)) and os.path.exists(source):
            self._made_of["source"] = os.path.abspath(source)
        self._engine_options: dict[str, Any] = {"precision": precision, "threads": threads}
        self._process, self._lock, self._images_seen = os.getpid(), Lock(), 0
        self._autotunes = engine == "auto" and device is None and not exported and not _gpu_present()
        if exported or engine not in ("auto", "eager"):
            self._engine = autotune.engine(source, engine, **self._engine_options)
        else:
            self._engine = self._open_first_engine(device)
        self._chosen_engines: dict[int, base.Engine] = {}  # by batch size
        metadata = self._engine.metadata
        self.arch, self.labels, self.classes = metadata.arch, metadata.labels, self._engine.classes
        if labels is not None:
            self.labels = class_names.rename_outputs(self.labels, self.classes, labels)
        stated = metadata.preprocess
        self.preprocess = replace(stated, decode=decode, color=color or stated.color, bits=bits or stated.bits)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of: another process opens it again, with an engine of its own."""
        state = {name: getattr(self, name) for name in ("tta", "labels", "preprocess", "batch_size")}
        return partial(Predictor, **self._made_of), (), state | {"_tunes_batch_size": self._tunes_batch_size}

    def __call__(self, images: ImageSource | Iterable[ImageSource], top: int = 5) -> list[Prediction]:
        """Predict paths, PIL images, contents of image files or uint8 arrays (H, W, 3), in order."""
        named_images = name_images(images)
        return list(self.stream(named_images, top, batch_size=1 if len(named_images) == 1 else None))

    def stream(
        self, named_images: batched_inference.NamedImages, top: int = 5, batch_size: int | None = None
    ) -> Iterator[Prediction]:
        """Predict (name, image) pairs one by one, in bounded memory, with the engine for ``batch_size``."""
        check_int("top", top, 1)
        self._require_classifier()
        compute = partial(self.compute, batch_size=batch_size)
        rows = batched_inference.run_batches(compute, named_images, self.input_preprocess, lambda: self.batch_size)
        return to_predictions(rows, self.labels, top)

    def predict_scores(
        self, named_images: batched_inference.NamedImages
    ) -> Iterator[tuple[str, Float64Array | ImageError]]:
        """Yield (name, float64 (classes,)) for (name, image) pairs: probabilities, or values."""
        return batched_inference.run_batches(self.compute, named_images, self.input_preprocess, lambda: self.batch_size)

    def embeddings(
        self, named_images: batched_inference.NamedImages
    ) -> Iterator[tuple[str, base.FloatArray | ImageError]]:
        """Yield (name, float32 (head channels,)) for (name, image) pairs, or an error; without ``tta``."""

        def compute(images: InputImage) -> base.FloatArray:
            return self._engine_for(self.batch_size, len(images)).embed(images)

        return batched_inference.run_batches(compute, named_images, self.preprocess, lambda: self.batch_size)

    @property
    def input_preprocess(self) -> Preprocess:
        """The preprocessing that `compute` expects: the model's, with room for the crops of ``tta``."""
        return views.tta_preprocess(self.preprocess, self.tta)

    def compute(self, images: InputImage, batch_size: int | None = None) -> Float64Array:
        """Return scores (N, classes) of images as `input_preprocess` makes them; NaN if a logit is not finite."""
        self._require_classifier()
        engine = self._engine_for(batch_size or self.batch_size, len(images))
        logits_of_views = list(map(engine.run, views.tta_views(images, self.preprocess, self.tta)))
        return views.average_scores(logits_of_views, task_of(self.labels.task))

    def _require_classifier(self) -> None:
        base.require_classes(self.classes, "prediction")

    @property
    def engine(self) -> base.Engine:
        """The engine in use."""
        return self._chosen_engines.get(self.batch_size) or self._chosen_engines.get(1) or self._engine

    def choose_engine(self, batch_size: int | None = None) -> base.Engine:
        """Use the fastest engine for this batch size from now on, remembered or found by timing all for some seconds.

        Without ``batch_size`` the fastest batch size is found too, unless one was given. If the engine is fixed (by
        name, device or file), it stays and is prepared for the batch size.
        """
        if batch_size is None:
            if self._tunes_batch_size:
                self._tune_batch_size()
            return self.choose_engine(self.batch_size)
        if batch_size not in self._chosen_engines:
            if self._autotunes:
                chosen = autotune.engine(self._model, batch_size=batch_size, **self._engine_options)
            else:
                chosen = self._engine
                chosen.prepare(batch_size)
            self._chosen_engines[batch_size] = chosen
        return self._chosen_engines[batch_size]

    def _tune_batch_size(self) -> None:
        """Switch to the batch size and engine of the highest throughput."""
        self._tunes_batch_size = False
        engines = [self.choose_engine(size) for size in (1, self.batch_size)]  # the best for one may be best for many
        throughputs = [autotune.get_throughput(self._model, engine) for engine in engines]
        best, engine = max(zip(throughputs, engines, strict=True), key=lambda pair: pair[0].max_images_per_second)
        self.batch_size = best.best_batch_size
        engine.prepare(self.batch_size)
        self._chosen_engines[self.batch_size] = engine

    def cache_engine_file(self) -> None:
        """Export the network into the engine cache, so that the next start does not need PyTorch."""
        if not self._autotunes or self._engine.kind != "eager" or self._chosen_engines:
            return
        self._engine = self._model.open_file_engine(self._engine_options["threads"]) or self._engine

    def _open_first_engine(self, device: str | None) -> base.Engine:
        if self._autotunes and (cached := autotune.open_cached_engine(self._model.key, **self._engine_options)):
            return cached
        from effnet.runtime.torch import EagerEngine

        return EagerEngine(self._model.network, "cpu" if self._autotunes else device, **self._engine_options)

    def _engine_for(self, batch_size: int, count: int) -> base.Engine:
        """Return the engine for the next ``count`` images, after the step that pays with the images seen so far."""
        if self._process != os.getpid():  # forked: a thread that does not exist here may hold the parent's lock
            self._process, self._lock = os.getpid(), Lock()
        with self._lock:
            if self._tunes_batch_size and batch_size > 1 and self._images_seen >= TUNE_BATCH_AFTER_IMAGES:
                self._tune_batch_size()
            elif batch_size not in self._chosen_engines and self._images_seen >= AUTOTUNE_AFTER_IMAGES:
                self.choose_engine(batch_size)
            elif not self._chosen_engines and self._images_seen and self._engine.kind == "eager":
                self.cache_engine_file()
            self._images_seen += count
            return self._chosen_engines.get(batch_size, self._engine)


def _gpu_present() -> bool:
    """Return whether torch would use a GPU, without importing torch; a hidden GPU does not count."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(map(os.path.exists, GPU_DEVICE_FILES))


def name_images(images: ImageSource | Iterable[ImageSource]) -> list[tuple[str, ImageSource]]:
    """Return (name, image) pairs. An array of fewer than four axes is one image, (N, H, W, 3) are several."""
    sources: list[ImageSource]
    if isinstance(images, (str, Path, bytes, Image.Image, LazyImage)):
        sources = [images]
    else:
        sources = [images] if isinstance(images, np.ndarray) and images.ndim < 4 else list(images)
    return [(_source_name(source, index), source) for index, source in enumerate(sources)]


def _source_name(source: ImageSource, index: int) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return source.name if isinstance(source, LazyImage) else f"image {index + 1}"
