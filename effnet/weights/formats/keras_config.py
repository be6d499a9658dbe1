"""What stands around the network in a Keras model: preprocessing before it, and the layers after it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effnet.arch.serde import parse_json
from effnet.metadata import IMAGENET_STD, Numerics

MODEL_CLASSES = ("Functional", "Model", "Sequential")
FIRST_LAYER, LAST_LAYER = "stem_conv", "top_activation"
# Before the network: layers that do not change images, at least outside of training
IGNORED_LAYERS = ("InputLayer", "ZeroPadding2D", "Dropout", "GaussianNoise")
ANY_SIZE_NOTE = (
    "built for no input size, Keras pads as for even maps: its outputs equal this network's only if every map that is "
    "halved is even (sides of 32, 64, 96 … are safe)"
)


@dataclass(frozen=True)
class KerasLayer:
    """One layer in the JSON."""

    kind: str  # "Conv2D"
    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class KerasConfig:
    """The layers before, within and after the network."""

    before: tuple[KerasLayer, ...]
    within: tuple[KerasLayer, ...]
    after: tuple[KerasLayer, ...]

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> "KerasConfig":
        """Parse JSON. Raises ``ValueError`` unless an EfficientNet as ours is in it."""
        try:
            layers = tuple(_flatten_layers(parse_json(text, path)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: its model's JSON cannot be read ({type(error).__name__}: {error})") from None
        indices = {layer.name: index for index, layer in enumerate(layers)}
        if not indices.get(FIRST_LAYER, 1) < indices.get(LAST_LAYER, 0):
            kinds = sorted({layer.kind for layer in layers})
            raise ValueError(f"{path}: contains no EfficientNet of keras.applications; its layers are {kinds}")
        first, last = indices[FIRST_LAYER], indices[LAST_LAYER]
        config = cls(layers[:first], layers[first : last + 1], layers[last + 1 :])
        activations = {str(layer.config.get("activation")) for layer in config.within if layer.kind == "Activation"}
        if activations - {"swish", "silu"}:
            raise ValueError(f"{path}: its activation is {', '.join(sorted(activations))}, but EfficientNet's is swish")
        if len(config._epsilons()) > 1:
            raise ValueError(f"{path}: its batch norms have more than one epsilon: {sorted(config._epsilons())}")
        return config

    def numerics(self) -> Numerics:
        """Return Keras' padding and the ε that the JSON states."""
        return Numerics("same", max(self._epsilons(), default=1e-3))

    def preprocess(self, normalizations: Mapping[str, Mapping[str, Tensor]], notes: list[str]) -> dict[str, Any]:
        """Return what the layers before the network do to pixels of 0 … 255, and the size it was built for.

        ``normalizations``: layer → tensors of those layers whose mean and variance are weights.
        """
        done, ignored = IDENTITY, []
        for layer in self.before:
            if layer.kind == "Rescaling":
                scale, offset = (_unwrap_array(layer.config[name]) for name in ("scale", "offset"))
                done = done.rescale(scale, offset)
            elif layer.kind == "Normalization":
                stated: Mapping[str, Any] = normalizations.get(layer.name, layer.config)
                done = done.normalize(_unwrap_array(stated["mean"]), _unwrap_array(stated["variance"]))
            elif layer.kind not in IGNORED_LAYERS and not layer.kind.startswith("Random"):
                ignored.append(layer.kind)
        if ignored:
            notes.append(f"ignoring unknown layers before the network: {', '.join(ignored)}")
        if done is IDENTITY:
            notes.append("it contains no preprocessing: assuming images scaled to -1 … 1, as Keras documents")
            done = IDENTITY.rescale(1 / 127.5, -1)
        shapes = self._input_shapes()
        found = done.preprocess(next((shape[2] for shape in shapes if shape[2]), 3))
        kinds = {layer.kind for layer in (*self.before, *self.within)}
        if shapes and not all(shapes[-1]) and "ZeroPadding2D" in kinds:
            notes.append(ANY_SIZE_NOTE)
        sizes = [shape[:2] for shape in shapes if all(shape)]
        return {**found, "size": sizes[-1]} if sizes else found

    def _input_shapes(self) -> list[tuple[Any, ...]]:
        """Return (height, width, channels) of the inputs of the model and of nested models; None: any."""
        configs = [layer.config for layer in self.before if layer.kind == "InputLayer"]
        stated = [config.get("batch_shape") or config.get("batch_input_shape") for config in configs]
        shapes = [tuple(shape[1:]) for shape in stated if shape and len(shape) == 4]
        if self.within[0].config.get("data_format") == "channels_first":
            return [(height, width, channels) for channels, height, width in shapes]
        return shapes

    def _epsilons(self) -> set[float]:
        return {float(layer.config["epsilon"]) for layer in self.within if layer.kind == "BatchNormalization"}


def _flatten_layers(model: Any) -> Iterator[KerasLayer]:
    config = model["config"]
    inner: Any = config.get("layers") if isinstance(config, dict) else config  # the first Sequential was a mere list
    if model["class_name"] in MODEL_CLASSES or isinstance(inner, list):
        for layer in inner:
            yield from _flatten_layers(layer)
    else:
        yield KerasLayer(model["class_name"], config.get("name") or model["name"], config)


def _unwrap_array(value: Any) -> Any:
    """Return the numbers in what Keras wraps arrays in: {"class_name": "__numpy__", "config": {"value": …}}."""
    if isinstance(value, Tensor):
        return value.double().numpy()
    while isinstance(value, Mapping):
        value = value["config"] if "config" in value else value["value"]
    return value


# Rescaling and Normalization layers as mean and std ---------------------------------------------------------------
#
# Keras' inputs are pixels of 0 … 255; each layer maps x to scale · x + offset, per channel. V1 with
# ``weights="imagenet"`` has a second Rescaling by 1/√std, because the published files contain ImageNet's standard
# deviations where the layer expects their squares (keras-team/keras ``applications/efficientnet.py``;
# tensorflow#49930).

Floats = NDArray[np.float64]
V1_STD_NOTE = (
    "its stored variance is ImageNet's standard deviation, as in the published files, which Keras loads into a network "
    'that rescales a second time (weights="imagenet"): assuming the same'
)


@dataclass(frozen=True)
class Affine:
    """x → scale · x + offset, with one number each or one per channel."""

    scale: Floats
    offset: Floats

    def rescale(self, scale: Any, offset: Any) -> "Affine":
        """Return this one followed by a Rescaling layer."""
        scale, offset = np.asarray(scale, np.float64), np.asarray(offset, np.float64)
        return Affine(self.scale * scale, self.offset * scale + offset)

    def normalize(self, mean: Any, variance: Any) -> "Affine":
        """Return this one followed by a Normalization layer: (x − mean) / √variance."""
        with np.errstate(all="ignore"):
            std = np.maximum(np.sqrt(np.asarray(variance, np.float64).reshape(-1)), 1e-7)
        return self.rescale(1 / std, -np.asarray(mean, np.float64).reshape(-1) / std)

    def preprocess(self, channels: int) -> dict[str, Any]:
        """Return mean and std for values in [0, 1] that do the same to values of 0 … 255."""
        with np.errstate(all="ignore"):  # `Preprocess` rejects infinite values
            std = 1 / (255 * self.scale)
            mean = 0 - self.offset * std
        return {"mean": _round_to_seven_digits(mean, channels), "std": _round_to_seven_digits(std, channels)}


IDENTITY = Affine(np.ones(()), np.zeros(()))


def preprocess_from_weights(
    normalizations: Mapping[str, Mapping[str, Tensor]], rescalings: int, notes: list[str]
) -> dict[str, Any]:
    """Return mean and std of V1, whose weights contain them; nothing of V2, whose weights do not.

    ``rescalings``: how many Rescaling layers the file lists. Weights files do not state what these do.
    """
    if len(normalizations) != 1:
        return {}
    (stated,) = normalizations.values()
    mean, variance = (stated[name].double().numpy() for name in ("mean", "variance"))
    done = IDENTITY.rescale(1 / 255, 0).normalize(mean, variance)
    published = np.shape(variance) == (3,) and np.allclose(variance, IMAGENET_STD, rtol=1e-5)
    if published and rescalings < 2:
        notes.append(V1_STD_NOTE)
    if published or rescalings > 1:
        done = done.rescale(1 / np.sqrt(IMAGENET_STD), 0)
    return done.preprocess(len(mean))


def _round_to_seven_digits(values: Floats, channels: int) -> tuple[float, ...]:
    """Return what the float32 values were before rounding: 0.229, not 0.22900000214576721."""
    return tuple(float(f"{value:.7g}") for value in np.broadcast_to(values.reshape(-1), (channels,)))


# Layers after the network as a classifier ---------------------------------------------------------------------------

INERT_LAYERS = ("InputLayer", "Dropout", "SpatialDropout2D", "GaussianDropout", "AlphaDropout", "GaussianNoise")
OUTPUT_LAYERS = ("Activation", "Softmax")
POOLING, NORMALIZATION, LINEAR = "GlobalAveragePooling2D", "BatchNormalization", "Dense"
DEFAULT_EPS = 1e-3  # of a BatchNormalization whose JSON is not in the file


@dataclass(frozen=True)
class KerasHead:
    """The classifier: its kernel (in, out) and bias, {} if there is none, with notes on how it was found."""

    tensors: Mapping[str, Tensor]
    task: str = "classification"
    notes: tuple[str, ...] = ()


def read_head(tensors: Mapping[str, Mapping[str, Tensor]], after: Sequence[KerasLayer] | None) -> KerasHead:
    """Return the classifier after the network, if all of it together is one linear layer of the pooled features.

    Batch norm before the Dense layer is folded into it, in float64.

    Args:
        tensors: layer → its tensors, of all layers besides the network.
        after: the layers that follow the network; None if the file does not state them.
    """
    if after is None:
        return _read_unordered_head(tensors)
    if not after:
        return KerasHead({})
    norms, dense, pooled, activation = list[KerasLayer](), list[KerasLayer](), False, "linear"
    for layer in after:
        if layer.kind == POOLING and not pooled:
            pooled = True
        elif layer.kind == NORMALIZATION and not dense:
            norms.append(layer)
        elif layer.kind == LINEAR and pooled and not dense:
            dense.append(layer)
            activation = str(layer.config.get("activation", "linear"))
        elif layer.kind in OUTPUT_LAYERS and dense and activation == "linear":
            activation = str(layer.config.get("activation", "softmax"))
        elif layer.kind not in INERT_LAYERS and not (layer.kind == "Flatten" and pooled):
            break  # another kind of head
    else:
        if dense and activation in ("linear", "softmax", "sigmoid"):
            epsilons = [float(layer.config.get("epsilon", DEFAULT_EPS)) for layer in norms]
            named = [(tensors.get(layer.name, {}), eps) for layer, eps in zip(norms, epsilons, strict=True)]
            return _fold_norms(tensors.get(dense[0].name, {}), named, activation)
        if not dense and pooled:
            return KerasHead({}, notes=("it has no classifier: after the network come only pooling and normalization",))
    kinds = [layer.kind for layer in after if layer.kind not in INERT_LAYERS]
    note = f"after the network come {', '.join(kinds)}, which are not one linear layer: opened without a classifier"
    return KerasHead({}, notes=(note,))


def _read_unordered_head(tensors: Mapping[str, Mapping[str, Tensor]]) -> KerasHead:
    """Return the only Dense layer of a file that does not say what follows what, with the batch norms of its inputs."""
    dense = {name: parts for name, parts in tensors.items() if {"kernel"} <= set(parts) <= {"kernel", "bias"}}
    if len(dense) == 1 and next(iter(dense.values()))["kernel"].ndim == 2:
        ((name, linear),) = dense.items()
        norms = {other: parts for other, parts in tensors.items() if other != name}
        inputs = linear["kernel"].shape[:1]
        if all("moving_mean" in parts and parts["moving_mean"].shape == inputs for parts in norms.values()):
            head = _fold_norms(linear, [(parts, DEFAULT_EPS) for parts in norms.values()], "linear")
            note = f"the file does not state the order of its layers: assuming {', '.join(norms)} before {name}"
            return KerasHead(head.tensors, notes=(note,) if norms else ())
    if not tensors:
        return KerasHead({})
    note = f"besides the network it has {', '.join(sorted(tensors))}: opened without a classifier"
    return KerasHead({}, notes=(note,))


def _fold_norms(
    linear: Mapping[str, Tensor], norms: Sequence[tuple[Mapping[str, Tensor], float]], activation: str
) -> KerasHead:
    if "kernel" not in linear:
        return KerasHead({}, notes=("the classifier's weights are not in it",))
    kernel = linear["kernel"]
    bias = linear.get("bias", torch.zeros(kernel.shape[1:], dtype=kernel.dtype))
    for parts, eps in reversed(norms):
        mean, variance = (parts[name].double() for name in ("moving_mean", "moving_variance"))
        scale = parts.get("gamma", torch.ones_like(mean)).double() / (variance + eps).sqrt()
        shift = parts.get("beta", torch.zeros_like(mean)).double() - mean * scale
        bias = (bias.double() + shift @ kernel.double()).to(kernel.dtype)
        kernel = (kernel.double() * scale[:, None]).to(kernel.dtype)
    task = "multilabel" if activation == "sigmoid" and kernel.shape[1] > 1 else "classification"
    notes = (f"{len(norms)} batch norms before the classifier are folded into it",) if norms else ()
    return KerasHead({"kernel": kernel, "bias": bias}, task, notes)
