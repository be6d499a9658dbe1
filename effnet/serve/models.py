"""Served models: name, predictor and queue of each, and its network for class activation maps."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.serde import did_you_mean
from effnet.data.image_io import ImageError, InputImage, load_input
from effnet.explanation import heatmap
from effnet.prediction import Predictor
from effnet.runtime.base import require_classes
from effnet.runtime.foreign_onnx import OnnxFile, find_runnable
from effnet.runtime.io_spec import is_exported
from effnet.serve import batching, errors, model_files

if TYPE_CHECKING:
    from effnet.net import EfficientNet


class ServedModel:
    """A model ready for requests: its engine and batch size are chosen when it is created. Thread-safe.

    ``wait`` and ``on_batch`` are those of `Batcher`, ``labels`` those of `Predictor`; ``open_source`` returns the
    network of a ``source``, or ``source`` itself to open it as stated. Raises ``ValueError`` if the network has no
    classifier, and what `Predictor` raises.

    Nothing is read again once it has been created but the network for maps, when the first one is asked for. If the
    files have been replaced by then, or are later, requests are refused, so that one never gets another network's map.
    """

    def __init__(
        self,
        name: str,
        source: "str | Path | EfficientNet",
        engine: str = "auto",
        batch_size: int | None = None,
        wait: float = 0.0,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
        labels: Sequence[str] | None = None,
        open_source: Callable[[str], "str | EfficientNet | OnnxFile"] = lambda source: source,
    ) -> None:
        self.name, self._source = name, source
        self._files = model_files.ModelFiles(source) if isinstance(source, (str, Path)) else None
        opened = open_source(source) if isinstance(source, str) else source
        opened = find_runnable(opened, engine) or opened
        # Whether it has activation maps: an exported file has outputs only
        runs_as_file = isinstance(opened, OnnxFile)
        self.can_explain = not runs_as_file and not (isinstance(source, (str, Path)) and is_exported(Path(source)))
        # A copy is not mapped from its file
        self._network = None if isinstance(opened, (str, Path, OnnxFile)) else deepcopy(opened)
        self.predictor = Predictor(opened, engine=engine, batch_size=batch_size, labels=labels)
        require_classes(self.predictor.classes, f"serving {name}")
        self.predictor.choose_engine(1)
        self.predictor.choose_engine(batch_size)
        if self._files and self._files.were_replaced():
            raise ValueError(f"{source} was replaced while it was being opened: start the server again")
        self._batcher = batching.Batcher(self._compute, self.predictor.batch_size, wait, on_batch)
        self._lock = Lock()

    def check_files(self) -> None:
        """Raise `RequestError` if the model's files were replaced: what it answers is no longer what they hold."""
        if self._files and self._files.were_replaced():
            message = f"the file of {self.name} was replaced since the server opened it: restart the server"
            raise errors.RequestError(503, message)

    def preprocess(self, content: bytes) -> InputImage:
        """Decode, resize and crop an image file. Raises `RequestError` if it cannot be decoded."""
        try:
            return load_input(content, self.predictor.input_preprocess)
        except ImageError as error:
            raise errors.RequestError(422, str(error).replace("the given file", "the image", 1)) from None

    def submit(self, image: InputImage) -> Future[batching.BatchedOutput]:
        """Return a future of the output of a preprocessed image."""
        return self._batcher.submit(image)

    def close(self) -> None:
        """Compute everything that is queued, then stop."""
        self._batcher.close()

    def class_index(self, label: str) -> int:
        """Return the index of a class, given by its label or number. Raises `RequestError` if there is none."""
        names, classes = self.predictor.labels.names[: self.predictor.classes], self.predictor.classes
        if label in names:
            return names.index(label)
        if label.isascii() and label.isdigit() and int(label) < classes:
            return int(label)
        near = did_you_mean(label, list(names)) or f": there are {classes}, from 0 to {classes - 1}"
        raise errors.RequestError(422, f"{self.name} has no class {label[:80]!r}{near}")

    def activation_map(self, image: InputImage, index: int) -> NDArray[np.float32]:
        """Return the class activation map (height, width) of class ``index``; the first call loads the network."""
        from effnet.explanation import class_activation_maps

        with self._lock:  # one at a time: more would only take cores from predictions
            maps = class_activation_maps(self._load_network(), image, [index])  # (1, height, width)
        return np.asarray(maps[0])

    def _load_network(self) -> "EfficientNet":
        if self._network is None:
            from effnet.weights import load

            assert self._files is not None
            assert isinstance(self._source, (str, Path))
            try:
                moved = model_files.ModelFiles(self._source).paths != self._files.paths
                network = deepcopy(load(self._source))  # read, not mapped: a mapped file may become shorter
            except (OSError, ValueError) as error:  # the file was there when the server started
                self.check_files()
                message = f"the weights of {self.name} can no longer be read: restore the file or restart the server"
                raise errors.RequestError(503, message) from error
            self.check_files()
            if moved:
                message = f"the weights of {self.name} are found in another file than before: restart the server"
                raise errors.RequestError(503, message)
            self._network = network
        return self._network

    def _compute(self, images: InputImage) -> batching.OutputRow:
        rows = self.predictor.compute(images, batch_size=1 if len(images) == 1 else None)
        if not np.isfinite(rows).all():
            raise ValueError("the model's output contains NaN or Inf: its weights are damaged")
        return rows


def name_models(sources: Sequence[str]) -> dict[str, str]:
    """Return name -> source, in order, of ``NAME=MODEL`` or ``MODEL``, which is named after its file or run."""
    models: dict[str, str] = {}
    for text in sources:
        match = re.fullmatch(r"([\w.-]+)=(.+)", text) if not Path(text).exists() else None
        name, source = (match[1], match[2]) if match else (_default_name(text), text)
        if name in models:
            raise ValueError(f"two models are named {name}: rename one, as other={source}")
        models[name] = source
    return models


def _default_name(source: str) -> str:
    path = Path(source)
    if not path.exists():
        return source
    path = path.resolve()
    if path.is_file() and path.stem == "model":  # all runs call their file the same
        return path.parent.name
    return path.stem if path.is_file() else path.name


def overlay_png(image: InputImage, values: NDArray[np.float32]) -> bytes:
    """Return the map over the grayscale image (H, W, 3) that the network saw, as a PNG."""
    return _encode_png(heatmap.overlay(image, values))


def layer_png(size: tuple[int, int], values: NDArray[np.float32]) -> bytes:
    """Return the map alone, of ``size`` (height, width), transparent where it is not positive, as a PNG."""
    height, width = size
    placed = heatmap.place_map(values, size, (0, 0, width, height))
    color, alpha = heatmap.colorize(placed, float(values.max()))
    return _encode_png(Image.fromarray(np.concatenate([color, 255 * alpha], -1).round().astype(np.uint8), "RGBA"))


def _encode_png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
