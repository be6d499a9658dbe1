"""Keras and TensorFlow: folders of SavedModel, heads of one's own, TFLite in three precisions."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from effnet.net import create
from tests.parity import timm_comparison
from tests.parity.peers import keras as peer
from tests.parity.peers import tflite
from tests.parity.zoo import networks
from tests.parity.zoo.table import FLOAT32_LIMIT, Opens, Photo, Sample, ZooFile, write_photo

SIZE = (64, 64)
OWN = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # in the network


def files() -> Iterator[ZooFile]:
    def keras_file(kind: str, name: str, write: Callable[[Path], Sample], today: str = "", **expected: Any) -> ZooFile:
        options = {"limit": FLOAT32_LIMIT, "preprocess": OWN, **expected}
        return ZooFile(kind, name, write, Opens(**options), today, sweep=True)

    yield keras_file("SavedModel", "model.export of Keras 3", partial(write_folder, export_model))
    yield keras_file("SavedModel", "tf.saved_model.save of a Keras network", partial(write_folder, save_model))
    yield keras_file("SavedModel", "tf.saved_model.save of a tf.Module", partial(write_folder, save_module))
    for suffix in (".keras", ".h5", ".weights.h5"):
        write = partial(write_model, pooled_dense, suffix)
        yield keras_file("Keras head", f"pooling, Dropout, Dense in {suffix}", write)
    for name, build in OTHER_HEADS.items():
        yield keras_file(
            "Keras head",
            name,
            partial(write_backbone, build, ".keras"),
            classes=0,
            compared="embedding",
            predict_says=("(?i)classifier",),
        )
    yield keras_file(
        "Keras head",
        "pooling, BatchNormalization, Dense: one linear layer",
        partial(write_model, pooled_norm_dense, ".keras"),
    )
    yield keras_file("Keras head", "a network within a network", partial(write_model, nested_dense, ".keras"))
    yield keras_file(
        "Keras head",
        "augmentation in front, BatchNormalization behind, as in Keras' tutorial",
        partial(write_model, tutorial, ".keras"),
    )
    yield keras_file(
        "Keras head", "include_top=False", partial(write_backbone, no_head, ".keras"), classes=0, compared="embedding"
    )
    for name, prepare in PRECISIONS.items():
        limit = 0.1 if name == "dynamic range" else FLOAT32_LIMIT  # its kernels round activations to int8 too
        stated = {} if name == "float16" else OWN  # mean and std are rounded as the weights are
        yield keras_file("TFLite of Keras", name, partial(write_tflite, prepare), limit=limit, preprocess=stated)
    yield keras_file("TFLite of Keras", "head of its own", write_tflite_head)
    for suffix in (".keras", ".h5"):
        yield keras_file(
            "one output and a sigmoid",
            f"Dense(1, sigmoid) of Keras in {suffix}",
            partial(write_sigmoid, suffix),
            classes=2,
            compared="sigmoid",
        )
    yield keras_file(
        "would run a program",
        "Lambda layer of Keras before the classifier",
        write_lambda,
        classes=0,
        compared="embedding",
        predict_says=("(?i)classifier|Lambda",),
    )


# Networks ------------------------------------------------------------------------------------------------------------


@cache
def backbone_and_weights() -> tuple[Any, Any]:
    """Return Keras' B0 without a top, and our network with the same weights."""
    peer.keras()
    torch.manual_seed(0)
    ours = create("b0", classes=networks.CLASSES)
    timm_comparison.randomize(ours, timm_comparison.random_images(16, (96, 96)))
    with peer.quiet():
        network = peer.constructor("b0")(weights=None, include_top=False, input_shape=(*SIZE, 3))
        peer.copy_weights(network, ours)
        peer.set_normalization(network, peer.MEAN, peer.STD**2)
    return network, ours


@peer.quiet()
def build(head: Callable[[Any, Any], Any]) -> Any:
    """Return a network of the backbone and ``head``, which gets keras.layers and the backbone's output."""
    keras, (backbone, _) = peer.keras(), backbone_and_weights()
    keras.utils.set_random_seed(0)
    network = keras.Model(backbone.input, head(keras.layers, backbone.output))
    for layer in network.layers[len(backbone.layers) :]:
        randomize_layer(layer)
    return network


def randomize_layer(layer: Any) -> None:
    """Set random weights and, for features near 0.3, random statistics."""
    rng = numpy.random.default_rng(0)
    if type(layer).__name__ == "BatchNormalization":
        channels = layer.weights[0].shape[0]
        values = (rng.uniform(0.5, 1.5, channels), rng.normal(0, 0.2, channels))
        statistics = (rng.normal(0.3, 0.1, channels), rng.uniform(0.5, 1.5, channels))
        layer.set_weights([*values, *statistics])
    elif type(layer).__name__ == "Dense":
        inputs, outputs = layer.kernel.shape
        layer.set_weights([rng.normal(0, inputs**-0.5, (inputs, outputs)), rng.normal(0, 0.1, outputs)])


def pooled_dense(layers: Any, x: Any) -> Any:
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(networks.CLASSES, activation="softmax")(x)


def pooled_norm_dense(layers: Any, x: Any) -> Any:
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(networks.CLASSES, activation="softmax")(layers.Dropout(0.4)(x))


def perceptron(layers: Any, x: Any) -> Any:
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    x = layers.Dropout(0.45)(layers.Dense(256, activation="relu")(x))
    return layers.Dense(networks.CLASSES, activation="softmax")(x)


def flattened(layers: Any, x: Any) -> Any:
    return layers.Dense(networks.CLASSES, activation="softmax")(layers.Flatten()(x))


def max_pooled(layers: Any, x: Any) -> Any:
    """Return a linear layer on features pooled otherwise: taken as the classifier it would answer wrongly."""
    return layers.Dense(networks.CLASSES)(layers.GlobalMaxPooling2D()(x))


def no_head(layers: Any, x: Any) -> Any:
    return x


OTHER_HEADS = {
    "pooling, BatchNormalization, Dense, Dropout, Dense": perceptron,
    "Flatten, Dense": flattened,
    "largest instead of average": max_pooled,
}


def nested_dense(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    head = (layers.GlobalAveragePooling2D(), layers.Dense(networks.CLASSES, activation="softmax"))
    return keras.Sequential([layers.Input((*SIZE, 3)), backbone, *head])


def tutorial(keras: Any, backbone: Any) -> Any:
    """Return the network of keras.io's example "Image classification via fine-tuning with EfficientNet"."""
    layers = keras.layers
    inputs = layers.Input((*SIZE, 3))
    x = layers.RandomContrast(0.1)(layers.RandomFlip()(layers.RandomRotation(0.15)(inputs)))
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D(name="avg_pool")(backbone(x)))
    x = layers.Dropout(0.2, name="top_dropout")(x)
    return keras.Model(inputs, layers.Dense(networks.CLASSES, activation="softmax", name="pred")(x))


WHOLE_NETWORKS = (nested_dense, tutorial)  # those that hold the backbone as one layer


# Files ---------------------------------------------------------------------------------------------------------------


def keras_sample(path: Path, answer: Tensor, **options: Any) -> Sample:
    """Return the sample of a network that takes pixels."""
    return Sample(path, networks.images(), answer, normalized_by=OWN, **options)


@peer.quiet()
def logits(network: Any) -> Tensor:
    """Return logits of `networks.images`: of probabilities their logarithm, which differs by a constant."""
    keras, last = peer.keras(), network.layers[-1]
    activation, last.activation = last.activation, keras.activations.linear
    answer = torch.from_numpy(numpy.asarray(network(pixels(), training=False)))
    last.activation = activation
    return answer


def pixels() -> Any:
    images = networks.images().permute(0, 2, 3, 1).numpy()  # (N, H, W, 3)
    return ((images * peer.STD + peer.MEAN) * 255).astype(numpy.float32)


@peer.quiet()
def save(network: Any, path: Path) -> None:
    if path.name.endswith(".weights.h5"):
        network.save_weights(path)
    else:
        network.save(path)


@peer.quiet()
def write_model(head: Callable[[Any, Any], Any], suffix: str, folder: Path) -> Sample:
    path = folder / f"model{suffix}"
    if head in WHOLE_NETWORKS:
        keras, (backbone, _) = peer.keras(), backbone_and_weights()
        keras.utils.set_random_seed(0)
        network = head(keras, backbone)
        for layer in network.layers:
            if layer is not backbone:
                randomize_layer(layer)
    else:
        network = build(head)
    save(network, path)
    return keras_sample(path, logits(network))


@peer.quiet()
def write_backbone(head: Callable[[Any, Any], Any], suffix: str, folder: Path) -> Sample:
    save(build(head), folder / f"model{suffix}")
    return keras_sample(folder / f"model{suffix}", embedding())


def embedding() -> Tensor:
    backbone, _ = backbone_and_weights()
    maps = torch.from_numpy(numpy.asarray(backbone(pixels(), training=False)))  # (N, H, W, channels)
    return maps.mean((1, 2))


@peer.quiet()
def write_folder(write: Callable[[Any, Path], None], folder: Path) -> Sample:
    network = build(pooled_dense)
    write(network, folder / "saved_model")
    return keras_sample(folder / "saved_model", logits(network))


def export_model(network: Any, folder: Path) -> None:
    with redirect_stdout(io.StringIO()):
        network.export(folder, verbose=False)


def save_model(network: Any, folder: Path) -> None:
    import tensorflow

    tensorflow.saved_model.save(network, str(folder))


def save_module(network: Any, folder: Path) -> None:
    """Save a module with a signature of one's own, as servers want it."""
    import tensorflow

    class Served(tensorflow.Module):  # type: ignore[misc]
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        @tensorflow.function(input_signature=[tensorflow.TensorSpec((None, *SIZE, 3))])  # type: ignore[untyped-decorator]
        def __call__(self, images: Any) -> dict[str, Any]:
            return {"probabilities": self.network(images)}

    tensorflow.saved_model.save(Served(network), str(folder))


def keep_float(converter: Any) -> None: ...


def round_to_float16(converter: Any) -> None:
    import tensorflow

    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tensorflow.float16]


def quantize_weights(converter: Any) -> None:
    import tensorflow

    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]


PRECISIONS = {"float": keep_float, "float16": round_to_float16, "dynamic range": quantize_weights}


@peer.quiet()
def write_tflite(prepare: Callable[[Any], None], folder: Path, head: Callable[[Any, Any], Any] | None = None) -> Sample:
    pytest.importorskip("ai_edge_litert")
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_keras_model(build(head or plain_top))
    prepare(converter)
    with redirect_stdout(io.StringIO()):
        content = converter.convert()
    path = folder / "model.tflite"
    path.write_bytes(content)
    return keras_sample(path, torch.from_numpy(tflite.run(content, pixels())))


def plain_top(layers: Any, x: Any) -> Any:
    return layers.Dense(networks.CLASSES)(layers.GlobalAveragePooling2D()(x))


@peer.quiet()
def write_tflite_head(folder: Path) -> Sample:
    """Write a head of batch norm and a linear layer, which the converter folds or keeps as it likes."""

    def head(layers: Any, x: Any) -> Any:
        x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
        return layers.Dense(networks.CLASSES)(x)

    return write_tflite(keep_float, folder, head)


@peer.quiet()
def write_sigmoid(suffix: str, folder: Path) -> Sample:
    def head(layers: Any, x: Any) -> Any:
        return layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))

    network = build(head)
    path = folder / f"cats_and_dogs{suffix}"
    save(network, path)
    return keras_sample(path, logits(network), photo=sigmoid_photo(network, folder))


def sigmoid_photo(network: Any, folder: Path) -> Photo:
    def probabilities(x: Tensor) -> Tensor:
        """Return both classes' probabilities, by the network rebuilt for the size of ``x``."""
        size = tuple(x.shape[2:])
        with peer.quiet():
            keras = peer.keras()
            base = peer.constructor("b0")(weights=None, include_top=False, input_shape=(*size, 3))
            base.set_weights(backbone_and_weights()[0].get_weights())
            peer.set_normalization(base, peer.MEAN, peer.STD**2)
            layers = keras.layers
            other = keras.Model(
                base.input, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(base.output))
            )
            other.layers[-1].set_weights(network.layers[-1].get_weights())
            images = x.permute(0, 2, 3, 1).numpy() * peer.STD + peer.MEAN
            probability = float(numpy.asarray(other((images * 255).astype(numpy.float32), training=False))[0, 0])
        return torch.tensor([1 - probability, probability], dtype=torch.double)

    return write_photo(folder, 3, probabilities)


@peer.quiet()
def write_lambda(folder: Path) -> Sample:
    """Write an archive with a function of Python in it, which Keras itself refuses to restore."""
    marker = folder / "was-run"

    def head(layers: Any, x: Any) -> Any:
        def touch(x: Any, marker: str = str(marker)) -> Any:
            open(marker, "w").close()
            return x

        x = layers.Lambda(touch)(layers.GlobalAveragePooling2D()(x))
        return layers.Dense(networks.CLASSES)(x)

    network = build(head)
    path = folder / "model.keras"
    save(network, path)
    marker.unlink()  # it was run as the network was built
    return keras_sample(path, embedding(), marker=marker)
