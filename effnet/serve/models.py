"""The models of a server: each with its name, its queue, and its network for maps where there is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import did_you_mean
from effnet.data.image_io import ImageError, InputImage, load_input
from effnet.prediction import Predictor
from effnet.runtime.io_spec import is_exported
from effnet.serve.batching import BatchedOutput, Batcher, OutputRow
from effnet.serve.errors import RETRY_AFTER, RequestError

if TYPE_CHECKING:
    from effnet.net import EfficientNet

_RUN_FILE_STEMS = ("model",)  # what the file in a run's folder is called, where the folder says more


class ServedModel:
    """A model ready for requests, called ``name``. Its engine is settled, and its best batch known, when it is made.

    ``source``: as of `Predictor`; ``batch``: pictures computed at once at the most, None for the engine's best.
    ``told`` hears of every batch: how many pictures, how many seconds. Several threads may call it.
    Raises ``ValueError`` for a network without a classifier, and what `Predictor` raises.
    """

    def __init__(
        self,
        name: str,
        source: str | Path | EfficientNet,
        engine: str = "auto",
        batch_size: int | None = None,
        wait: float = 0.0,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.name, self._source = name, source
        self.predictor = Predictor(source, engine=engine, batch_size=batch_size)
        if not self.predictor.classes:
            raise ValueError(f"{name} has no classifier, and so no answers to serve: train a head on your pictures")
        self.predictor.choose_engine(1)
        self.predictor.choose_engine(batch_size)
        self._batcher = Batcher(self._compute, self.predictor.batch_size, wait, on_batch)
        self._lock = Lock()
        self._network: EfficientNet | None = None

    def preprocess(self, content: bytes) -> InputImage:
        """The picture's file as the network wants it. Raises `Refusal` where it cannot be decoded."""
        try:
            return load_input(content, self.predictor.tta_preprocess)
        except ImageError as error:
            raise RequestError(422, str(error).replace("the given file", "the picture", 1)) from None

    def submit(self, image: InputImage) -> Future[BatchedOutput]:
        """The answer to come, of a picture that is `prepared`."""
        return self._batcher.submit(image)

    def close(self) -> None:
        """Answers all that waits, and ends."""
        self._batcher.close()

    def class_index(self, label: str) -> int:
        """The class of that label or number. Raises `Refusal` for one that there is not."""
        names, classes = self.predictor.labels.names[: self.predictor.classes], self.predictor.classes
        if label in names:
            return names.index(label)
        if label.isascii() and label.isdigit() and int(label) < classes:
            return int(label)
        near = did_you_mean(label, list(names)) or f": there are {classes}, from 0 to {classes - 1}"
        raise RequestError(422, f"{self.name} has no class {label[:80]!r}{near}")

    def require_explanations(self) -> None:
        """Raises `Refusal` where it gives no maps."""
        if not self.can_explain:
            raise RequestError(
                422, f"{self.name} is an exported file, which gives no maps: serve the weights that it was made of"
            )

    @property
    def can_explain(self) -> bool:
        """Whether there is a network whose maps can be looked at: an exported file gives answers only."""
        return not (isinstance(self._source, (str, Path)) and is_exported(Path(self._source)))

    def activation_map(self, picture: InputImage, wanted: int) -> NDArray[np.float32]:
        """Where class ``wanted`` is seen: (height, width), see `effnet.explanation.attribution`.

        The first call loads the network, and PyTorch with it. Raises `Refusal` where its file is no longer there.
        """
        from effnet.explanation import class_activation_maps

        with self._lock:  # one at a time: it would only take the cores from those who predict
            maps = class_activation_maps(self._load_network(), picture, [wanted])  # (1, height, width)
        return np.asarray(maps[0])

    def _load_network(self) -> EfficientNet:
        if self._network is None:
            if isinstance(self._source, (str, Path)):
                from effnet.weights import load

                try:
                    self._network = load(self._source)
                except (OSError, ValueError) as error:  # its file was there when the server started
                    raise RequestError(
                        503,
                        f"the weights of {self.name} cannot be read any more, so that there are no maps: put their "
                        "file back, or start the server again",
                        RETRY_AFTER,
                    ) from error
            else:
                self._network = self._source
        return self._network

    def _compute(self, pictures: InputImage) -> OutputRow:
        rows = self.predictor.compute(pictures, single=len(pictures) == 1)
        if not np.isfinite(rows).all():
            raise ValueError("the network answers with numbers that are not finite: its weights are damaged")
        return rows


def name_models(sources: Sequence[str]) -> dict[str, str]:
    """Names of models and where each comes from, in order: ``NAME=MODEL``, or ``MODEL`` with a name of its own.

    Raises ``ValueError`` where two would have the same.
    """
    found: dict[str, str] = {}
    for text in sources:
        spelled = re.fullmatch(r"([\w.-]+)=(.+)", text) if not Path(text).exists() else None
        name, source = (spelled[1], spelled[2]) if spelled else (_default_name(text), text)
        if name in found:
            raise ValueError(f"two models would be called {name}: give one another name, as other={source}")
        found[name] = source
    return found


def _default_name(source: str) -> str:
    path = Path(source)
    if not path.exists():
        return source
    path = path.resolve()
    stem = path.stem if path.is_file() else path.name
    return path.parent.name if path.is_file() and stem in _RUN_FILE_STEMS else stem
