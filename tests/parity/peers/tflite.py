"""TFLite: networks of Keras and TensorFlow, written by its converter and run by its interpreter.

A network is the bytes of a file. All take pixels and normalize them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from effnet.arch import ARCHS
from tests.parity.ecosystems import ODD
from tests.parity.peers import keras, tensorflow

VARIANTS = (*keras.VARIANTS, *("lite0", "lite1", "lite2", "lite3", "lite4", "edge_s", "edge_m", "edge_l"))
SUFFIXES = (".tflite",)
FLOAT64 = False
LIMIT = 1e-4


@dataclass(frozen=True)
class Network:
    """Bytes of a file, and our name of the network in it."""

    name: str
    content: bytes


def build(name: str) -> Network:
    """Convert the network of Keras, or of TensorFlow if Keras has none, in float32."""
    return Network(name, convert_network(name))


def convert_network(name: str, prepare: Callable[[Any], None] = lambda converter: None) -> bytes:
    """Return the converter's file of the network; ``prepare`` sets the converter's options."""
    with keras.quiet():
        tf = tensorflow.tensorflow()

        _, traced = trace(name)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])  # variables become constants
        prepare(converter)
        content: bytes = converter.convert()
        return content


@lru_cache(1)
def trace(name: str) -> tuple[Any, Any]:
    """Return the network, which owns the variables, and its trace for a single image."""
    keras.keras()
    with keras.quiet():
        tf = tensorflow.tensorflow()

        network = keras.build(name) if name in keras.VARIANTS else official(name)
        shape = tf.TensorSpec((1, *(ARCHS[name].resolution,) * 2, 3))
        return network, tf.function(lambda pixels: network(pixels), autograph=False).get_concrete_function(shape)


def official(name: str) -> Callable[[Any], Any]:
    """Return a network of the official builders as a function of pixels with constant weights."""
    network, tf = tensorflow.build(name), tensorflow.tensorflow()

    def logits(pixels: Any) -> Any:
        run = tensorflow.Forward(tensorflow.OFFICIAL[name], lambda part, _: tf.constant(network.values[part]))
        return run((pixels - 127.0) / 128.0)

    return logits


def write(network: Network, path: Path) -> None:
    path.write_bytes(network.content)


def read(name: str, path: Path) -> Network:
    return Network(name, path.read_bytes())


def predict(network: Network, x: Tensor) -> Tensor:
    """Return logits for normalized images."""
    return torch.from_numpy(run(network.content, pixels(network.name, x)))


def run(content: bytes, images: Any) -> Any:
    """Run one batch with the interpreter's default kernels, resizing its input if necessary."""
    with keras.quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content, num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
        interpreter.resize_tensor_input(index, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def pixels(name: str, x: Tensor) -> Any:
    """Convert normalized images (N, 3, H, W) to pixels (N, H, W, 3) in float32, undoing the network's normalization."""
    images = x.permute(0, 2, 3, 1).double().numpy()  # (N, H, W, 3)
    if name in ("v2_s", "v2_m", "v2_l"):
        return (images * 128 + 128).astype(numpy.float32)
    if name in keras.VARIANTS:
        return ((images * keras.STD + keras.MEAN) * 255).astype(numpy.float32)
    return (images * 128 + 127).astype(numpy.float32)


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """All sizes are supported: the converter recognizes Keras' explicit padding of V1 as 'same'.

    With random weights, the deepest networks exceed the limit through float32 rounding at small sizes.
    """
    native = ARCHS[name].resolution
    return (native, native), ((305, 351) if name in ("b5", "b6", "b7") else ODD)
