"""What the JSON of a whole Keras model says: its layers in order, a model within the model opened into its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from effnet.contract import Numerics
from effnet.weights.formats.keras import rescale

MODELS = ("Functional", "Model", "Sequential")
PAD = "ZeroPadding2D"
FIRST, LAST = "stem_conv", "top_activation"
# Before the network: what leaves pictures as they are, at least outside of training
HARMLESS = ("InputLayer", PAD, "Dropout", "GaussianNoise")
AFTER = ("InputLayer", "GlobalAveragePooling2D", "Flatten", "Dropout", "Dense", "Activation", "Softmax")
ACTIVATIONS = ("swish", "silu")
ANY_SIZE = (
    "built for no input size, Keras pads as for even maps: its answers are those of this network only where every map "
    "that is halved is even (sides of 32, 64, 96 … are safe)"
)


@dataclass(frozen=True)
class Said:
    """One layer in the JSON."""

    kind: str  # "Conv2D"
    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """The layers before, within and after the network."""

    before: tuple[Said, ...]
    within: tuple[Said, ...]
    after: tuple[Said, ...]

    @classmethod
    def read(cls, text: str, path: Path) -> Config:
        """From JSON. Raises ``ValueError`` for a model that is not an EfficientNet with at most a classifier after."""
        try:
            layers = tuple(_layers(json.loads(text)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: its model's JSON cannot be read ({type(error).__name__}: {error})") from None
        places = {layer.name: place for place, layer in enumerate(layers)}
        if not places.get(FIRST, 1) < places.get(LAST, 0):
            kinds = sorted({layer.kind for layer in layers})
            raise ValueError(f"{path}: no EfficientNet of keras.applications is in it; its layers are {kinds}")
        first, last = places[FIRST], places[LAST]
        found = cls(layers[:first], layers[first : last + 1], layers[last + 1 :])
        found.check(path)
        return found

    def check(self, path: Path) -> None:
        """Raises ``ValueError`` for what the network here would not do."""
        kinds = [layer.kind for layer in self.after]
        if any(kind not in AFTER for kind in kinds) or kinds.count("Dense") > 1:
            raise ValueError(
                f"{path}: after the network come {', '.join(kinds)}; "
                "what is understood is global average pooling, dropout and one Dense layer"
            )
        said = {str(layer.config.get("activation")) for layer in self.within if layer.kind == "Activation"}
        if said - set(ACTIVATIONS):
            raise ValueError(f"{path}: its activation is {', '.join(sorted(said))}, where EfficientNet's is swish")
        if len(self._epsilons()) > 1:
            raise ValueError(f"{path}: its batch norms have more than one epsilon: {sorted(self._epsilons())}")

    def numerics(self) -> Numerics:
        """Keras' padding, and the ε that the JSON states."""
        return Numerics("same", max(self._epsilons(), default=1e-3))

    def preprocess(self, normalisations: Mapping[str, Mapping[str, Tensor]], remarks: list[str]) -> dict[str, Any]:
        """What the layers before the network do to pixels of 0 … 255, and the size that it was built for.

        ``normalisations``: layer → the tensors of those that learnt their mean and variance.
        """
        done, left_out = rescale.IDENTITY, []
        for layer in self.before:
            if layer.kind == "Rescaling":
                done = done.then(rescale.rescaling(_numbers(layer.config["scale"]), _numbers(layer.config["offset"])))
            elif layer.kind == "Normalization":
                said: Mapping[str, Any] = normalisations.get(layer.name, layer.config)
                done = done.then(rescale.normalisation(_numbers(said["mean"]), _numbers(said["variance"])))
            elif layer.kind not in HARMLESS and not layer.kind.startswith("Random"):
                left_out.append(layer.kind)
        if left_out:
            remarks.append(f"layers before the network that are not understood are left out: {', '.join(left_out)}")
        if done is rescale.IDENTITY:
            remarks.append("no preprocessing is in it: its pictures are taken to be scaled to -1 … 1, as Keras says")
            done = rescale.rescaling(1 / 127.5, -1)
        shapes = self._shapes()
        stated = done.preprocess(next((shape[2] for shape in shapes if shape[2]), 3))
        if shapes and not all(shapes[-1]) and PAD in {layer.kind for layer in (*self.before, *self.within)}:
            remarks.append(ANY_SIZE)
        sizes = [shape[:2] for shape in shapes if all(shape)]
        return {**stated, "size": sizes[-1]} if sizes else stated

    def _shapes(self) -> list[tuple[Any, ...]]:
        """(height, width, channels) of the pictures, of the model and of the models within it; None: any."""
        said = (
            layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
            for layer in self.before
            if layer.kind == "InputLayer"
        )
        shapes = [tuple(shape[1:]) for shape in said if shape and len(shape) == 4]
        if self.within[0].config.get("data_format") == "channels_first":
            return [(height, width, channels) for channels, height, width in shapes]
        return shapes

    def _epsilons(self) -> set[float]:
        return {float(layer.config["epsilon"]) for layer in self.within if layer.kind == "BatchNormalization"}


def _layers(said: Any) -> Iterator[Said]:
    """The layers of a model, and of the models within it, in order."""
    config = said["config"]
    inner: Any = config.get("layers") if isinstance(config, dict) else config  # the first Sequential was a mere list
    if said["class_name"] in MODELS or isinstance(inner, list):
        for layer in inner:
            yield from _layers(layer)
    else:
        yield Said(said["class_name"], config.get("name") or said["name"], config)


def _numbers(said: Any) -> Any:
    """Numbers out of what Keras wraps around arrays: {"class_name": "__numpy__", "config": {"value": …}}."""
    if isinstance(said, Tensor):
        return said.double().numpy()
    while isinstance(said, Mapping):
        said = said["config"] if "config" in said else said["value"]
    return said
