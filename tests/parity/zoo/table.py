"""The columns of the table: how a file is written, and what opening it must give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from effnet.metadata import Numerics

FLOAT64_LIMIT, FLOAT32_LIMIT = 1e-8, 1e-4  # of the largest difference relative to the largest value


COLORS = {1: (170,), 3: (200, 120, 40), 4: (200, 120, 40, 90)}  # by channels: grey, RGB, RGBA


@dataclass(frozen=True)
class Photo:
    """An image file of one color, whose preprocessing is plain arithmetic, and the network's own answer to it.

    ``probabilities`` takes the normalized image (1, C, H, W) in float64.
    """

    path: Path
    color: tuple[int, ...]
    probabilities: Callable[[Tensor], Tensor]


def write_photo(folder: Path, channels: int, probabilities: Callable[[Tensor], Tensor]) -> Photo:
    """Write an image of one color, larger than any network's input."""
    path, color = folder / "photo.png", COLORS[channels]
    Image.new({1: "L", 3: "RGB", 4: "RGBA"}[channels], (320, 320), color if channels > 1 else color[0]).save(path)
    return Photo(path, color, probabilities)


@dataclass(frozen=True)
class Sample:
    """A file or folder that was written, with the answer of the network that wrote it.

    ``answer`` belongs to ``images`` (N, C, H, W), normalized, in float64. ``marker`` is a file that the checkpoint
    would write if anything in it were executed. ``normalized_by`` are the mean and std of ``images`` if the network
    that wrote the file takes pixels: others that the file states are then taken instead.
    """

    path: Path
    images: Tensor | None = None
    answer: Tensor | None = None
    marker: Path | None = None
    photo: Photo | None = None
    normalized_by: Mapping[str, tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Opens:
    """The file opens, and answers as the network that wrote it.

    Args:
        arch: name of the network, in any library's spelling.
        classes: outputs of the classifier; 0: the backbone opens without one.
        compared: which output ``Sample.answer`` is: "logits", "embedding", or a key of `EfficientNet.features`.
        channels: input channels.
        numerics: padding and ε that the network must have; None: whatever gives the right answer.
        preprocess: fields of `effnet.Preprocess` that must be so.
        labels: names of the classes that must have been read.
        task: what the outputs mean.
        says: regular expressions, each found in what is logged.
        predict_says: regular expressions, each found in what ``effnet predict`` prints to stderr as it refuses; none:
            ``predict`` is not run unless the sample has a photo.
        options: options of `effnet.load` without which the answer cannot be right.
        limit: of the largest difference relative to the largest value; the network runs in float64 up to 1e-8.
    """

    arch: str = "b0"
    classes: int = 7
    compared: str = "logits"
    channels: int = 3
    numerics: Numerics | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    task: str = "classification"
    says: tuple[str, ...] = ()
    predict_says: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: float = FLOAT64_LIMIT


@dataclass(frozen=True)
class Refused:
    """The file is refused in at most six lines, by `effnet.load`, ``predict`` and ``convert`` alike.

    Args:
        says: regular expressions, each found in the message.
    """

    says: tuple[str, ...] = ()


@dataclass(frozen=True)
class ZooFile:
    """A row of the table.

    Args:
        kind: what the file is an example of; several files share it.
        name: what distinguishes it within its kind.
        write: writes it into an empty folder.
        expected: what opening it must give.
        today: what is wrong with it today: the test must fail. "" if it passes.
        sweep: written by a library that takes long to import, or large: only in ``make parity``.
    """

    kind: str
    name: str
    write: Callable[[Path], Sample]
    expected: Opens | Refused
    today: str = ""
    sweep: bool = False

    @property
    def id(self) -> str:
        """Return the name of its test."""
        return f"{self.kind}: {self.name}"
