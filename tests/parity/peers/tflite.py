"""TFLite: networks of Keras and of TensorFlow, made into files by its converter and run by its interpreter.

A network is a file's bytes. All take pixels, as their users feed them, and normalise inside.
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
DOUBLE = False
LIMIT = 1e-4


@dataclass(frozen=True)
class Network:
    """A file's bytes, and our name of what is in it."""

    name: str
    content: bytes


def build(name: str) -> Network:
    """Its converter's float32 file of the ecosystem's own network: Keras' where it has one, else TensorFlow's."""
    return Network(name, converted(name))


def converted(name: str, prepare: Callable[[Any], None] = lambda converter: None) -> bytes:
    """The file that the converter makes of the network after ``prepare`` has set its options."""
    with keras.quiet():
        tf = tensorflow.tensorflow()

        _, traced = function(name)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])  # its variables become constants
        prepare(converter)
        content: bytes = converter.convert()
        return content


@lru_cache(1)
def function(name: str) -> tuple[Any, Any]:
    """The network, which keeps its variables alive, and how TensorFlow traces it for a single picture."""
    keras.keras()
    with keras.quiet():
        tf = tensorflow.tensorflow()

        network = keras.build(name) if name in keras.VARIANTS else official(name)
        shape = tf.TensorSpec((1, *(ARCHS[name].resolution,) * 2, 3))
        return network, tf.function(lambda pixels: network(pixels), autograph=False).get_concrete_function(shape)


def official(name: str) -> Callable[[Any], Any]:
    """A network of the official builders as a function of pixels, its numbers constants."""
    network, tf = tensorflow.build(name), tensorflow.tensorflow()

    def logits(pixels: Any) -> Any:
        run = tensorflow.Pass(tensorflow.OFFICIAL[name], lambda part, _: tf.constant(network.values[part]))
        return run((pixels - 127.0) / 128.0)

    return logits


def write(network: Network, path: Path) -> None:
    path.write_bytes(network.content)


def read(name: str, path: Path) -> Network:
    return Network(name, path.read_bytes())


def answer(network: Network, x: Tensor) -> Tensor:
    """Logits of the pixels that become ``x``."""
    return torch.from_numpy(run(network.content, pixels(network.name, x)))


def run(content: bytes, pictures: Any) -> Any:
    """The interpreter's answer to one batch, its input resized to that, with the kernels that it takes by default."""
    with keras.quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content, num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    if tuple(interpreter.get_input_details()[0]["shape"]) != pictures.shape:
        interpreter.resize_tensor_input(place, pictures.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, pictures)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def pixels(name: str, x: Tensor) -> Any:
    """Preprocessed (N, 3, H, W) → the pixels that the ecosystem's networks make into that, (N, H, W, 3) float32."""
    pictures = x.permute(0, 2, 3, 1).double().numpy()  # (N, H, W, 3)
    if name in ("v2_s", "v2_m", "v2_l"):
        return (pictures * 128 + 128).astype(numpy.float32)
    if name in keras.VARIANTS:
        return ((pictures * keras.STD + keras.MEAN) * 255).astype(numpy.float32)
    return (pictures * 128 + 127).astype(numpy.float32)


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """Keras' V1 pads by hand; the converter finds that it is 'same', so that any size can be asked.

    The deepest ones overflow with random weights at few pixels: float32 itself then loses more than the limit.
    """
    native = ARCHS[name].resolution
    return (native, native), ((305, 351) if name in ("b5", "b6", "b7") else ODD)
