"""What the graph of a TFLite or ONNX file says of padding, and by its first operators of mean, std and size."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from effnet.arch import ARCHS, serde
from effnet.metadata import Numerics
from effnet.weights import defaults

Numbers = NDArray[Any]
ARITHMETIC_OPERATORS = {"MUL": np.multiply, "DIV": np.divide, "ADD": np.add, "SUB": np.subtract}
# Defaults of keras.utils.image_dataset_from_directory, for networks whose classifier is the user's own
KERAS_FOLDER_PREPROCESS = {
    "resize": "squash",
    "crop_fraction": 1.0,
    "interpolation": "bilinear",
    "resampling": "tensorflow",
}


@dataclass(frozen=True)
class InputTransform:
    """A tensor that is ``gain · x + offset`` of the input x, each one number or one per channel."""

    gain: Numbers = field(default_factory=lambda: np.ones(()))
    offset: Numbers = field(default_factory=lambda: np.zeros(()))

    def then(self, kind: str, numbers: Numbers) -> "InputTransform":
        """Return it after an operator with a constant."""
        apply, by = ARITHMETIC_OPERATORS[kind], numbers.reshape(-1).astype(np.float64)
        gain = apply(self.gain, by) if kind in ("MUL", "DIV") else self.gain
        return InputTransform(gain, apply(self.offset, by))


def explicit_padding(added: ArrayLike, kernel: int, stride: int, size: tuple[int, ...]) -> str | None:
    """Return which padding it is to add these rows and columns to a map: "same", "symmetric", or None for either.

    ``added``: ((top, bottom), (left, right)). ``size``: (height, width) of the map before, () if unknown. Raises
    ``ValueError`` for what no EfficientNet does.
    """
    added, half = np.asarray(added), kernel // 2
    if (added == half).all():
        odd = len(size) == 2 and all(side % 2 == 1 and side > 1 for side in size)
        return None if stride == 1 or kernel == 1 or odd else "symmetric"  # at odd sizes 'same' is symmetric
    # At even sizes 'same' leaves the first row out, at odd ones not: of a map 24×25 the columns are symmetric.
    if stride == 2 and {tuple(axis) for axis in added.tolist()} <= {(half - 1, half), (half, half)}:
        return "same"
    raise ValueError(f"a {kernel}×{kernel} convolution padded by {added.tolist()}, as no EfficientNet is")


def takes_pixels(interface: str | bytes) -> bool:
    """Return whether a file of ours takes pixels, of whose std its stem is rid, by its `effnet.runtime.io_spec`."""
    input = serde.parse_json(interface, "its interface")["input"]
    return input not in ("normalized", "normalised")  # older files; words: allow


# Preprocessing, from the graph's input, its first operators and its metadata ---------------------------------------

MeanStdArrays = tuple[NDArray[Any], NDArray[Any]]
UNCLEAR_INPUT = "its preprocessing before the first convolution is unknown"


@dataclass(frozen=True)
class InputPreprocess:
    """The fields of `Preprocess` that the file states, and by what the stem's kernels are to be multiplied for them."""

    preprocess: dict[str, Any] = field(default_factory=dict)
    stem_factor: NDArray[Any] = field(default_factory=lambda: np.ones(1))  # one number per channel of the image
    notes: tuple[str, ...] = ()


def infer_preprocess(
    kind: str,
    shape: tuple[int, ...],
    quantization: tuple[float, int],
    transform: InputTransform | None,
    mean_std: MeanStdArrays | None,
    channels: int,
) -> InputPreprocess:
    """Return the preprocessing of images from the graph's input, what the stem receives of it, and the metadata.

    Converters move the division by std into the stem's kernels if they can: for a mean of the official weights it is
    moved back.

    Args:
        kind: the input's type: "UINT8", "INT8"; all others are floats.
        shape: the input's, (N, H, W, C) or (N, C, H, W).
        quantization: scale and zero point of an input of bytes.
        transform: what is done to the image before the stem; None if that is unknown.
        mean_std: those of the metadata, by which pixels of 0 … 255 become the input.
        channels: of the image.
    """
    if transform is None:
        return InputPreprocess(notes=(UNCLEAR_INPUT,))
    size = _input_size(shape, channels)
    pair = mean_std or _pixel_range(kind, quantization) or _likely_range(transform)
    if pair is None:
        untouched = (transform.gain == 1).all() and (transform.offset == 0).all()
        return InputPreprocess(size, notes=() if untouched else (UNCLEAR_INPUT,))
    with np.errstate(all="ignore"):
        mean = (pair[0] - pair[1] * transform.offset / transform.gain) / 255
        std = pair[1] / transform.gain / 255
    if mean.size not in (1, channels) or std.size not in (1, channels):
        return InputPreprocess(size, notes=(UNCLEAR_INPUT,))
    mean, std = (np.broadcast_to(value.reshape(-1), channels) for value in (mean, std))
    if not ((std > 0) & (std <= 10) & (abs(mean) <= 10)).all():
        return InputPreprocess(size, notes=(UNCLEAR_INPUT,))
    means, stds = (tuple(map(_undo_float32_rounding, values)) for values in (mean, std))
    official = [defaults.default_preprocess(arch) for arch in ARCHS.values()] if channels == 3 else []
    for known in official:
        if np.allclose(means, known.mean, 0, 1e-5) and not np.allclose(stds, known.std, 0, 1e-5):
            note = "the division by std, which was hidden in the stem's kernels, is preprocessing again"
            return InputPreprocess({**size, "mean": known.mean, "std": known.std}, np.array(known.std) / stds, (note,))
    return InputPreprocess({**size, "mean": means, "std": stds})


def _input_size(shape: tuple[int, ...], channels: int) -> dict[str, Any]:
    """Return the input's height and width, whether its channels come last or first; empty if they are not stated."""
    if len(shape) != 4:
        return {}
    height, width = shape[1:3] if shape[3] == channels else shape[2:4]
    return {"size": (height, width)} if min(height, width) > 1 else {}


def _pixel_range(kind: str, quantization: tuple[float, int]) -> MeanStdArrays | None:
    """Return mean and std of an input of bytes, which are the pixels themselves (int8: minus 128)."""
    if kind not in ("UINT8", "INT8"):
        return None
    shift = 0 if kind == "UINT8" else 128
    scale, zero = quantization
    return np.array(float(zero + shift)), np.array(1 / scale if scale else np.inf)


def _likely_range(transform: InputTransform) -> MeanStdArrays | None:
    """Return mean and std of an input of floats: 0 … 255 or 0 … 1, judged by the mean that the graph subtracts."""
    with np.errstate(all="ignore"):
        mean = -transform.offset / transform.gain
    if ((mean > 1) & (mean < 255)).all() or ((mean == 0) & (transform.gain < 0.02)).all():
        return np.array(0.0), np.array(1.0)
    if ((mean > 0) & (mean <= 1)).all():
        return np.array(0.0), np.array(255.0)
    return None


def find_input_range(kind: str, transform: InputTransform | None) -> tuple[float, float] | None:
    """Return the range of values that a graph takes and normalizes itself; None if it leaves that to its caller."""
    if kind == "UINT8":
        return 0.0, 255.0
    if transform is None or ((transform.gain == 1).all() and (transform.offset == 0).all()):
        return None
    pair = _likely_range(transform)
    return None if pair is None else (0.0, 255.0 / float(pair[1]))


def _undo_float32_rounding(value: float) -> float:
    """Return what a float32 was before it was rounded: 127/255, or .485 for .4850000143."""
    for exact in (round(value * 255) / 255, round(value, 6)):
        if abs(exact - value) <= 1e-7 * abs(value):
            return float(exact)
    return float(value)


class PaddedConvolution(Protocol):
    """What `infer_padding` reads of a convolution."""

    @property
    def kind(self) -> str:
        """``conv``, ``depthwise`` or ``linear``."""

    @property
    def padding(self) -> str | None:
        """``same`` or ``symmetric``; None or "" where both are equal."""


def infer_padding(convolutions: Iterable[PaddedConvolution]) -> Numerics | None:
    """Return the padding, which shows where convolutions stride; None if none does. ε is the default."""
    fused, others = set[str](), set[str]()
    for index, each in enumerate(convolutions):
        if each.padding:
            (fused if index and each.kind == "conv" else others).add(each.padding)
    if len(fused) > 1 or len(others) > 1:
        raise ValueError("it pads some convolutions as TensorFlow does and some symmetrically, as no EfficientNet does")
    padding = next(iter(others or fused), None)
    if padding is None:
        return None
    return Numerics(padding, fused_padding="" if fused <= {padding} else next(iter(fused)))
