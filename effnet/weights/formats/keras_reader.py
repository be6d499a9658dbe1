"""Keras files, read without Keras: ``.h5`` of Keras 2 and 3, ``.weights.h5`` and ``.keras``.

This is our own code because Keras rebuilds a model from its JSON, which takes TensorFlow and can run code in the file.

- ``.h5``, as Keras 2 writes weights and Keras 2 and 3 whole models: groups are named after layers.
- ``.weights.h5``: groups are named after classes and counted in the order of the layers ("conv2d_3"). Newer versions of
  Keras 3 write the layer's name too; for older ones the order is that of keras.applications' networks.
- ``.keras``: a ``.weights.h5`` in an archive, with the model as JSON. Keras 2.13 has other group names.

Sources: keras-team/keras ``legacy/saving/legacy_h5_format.py``, ``saving/saving_lib.py``.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from effnet.arch import ARCHS
from effnet.metadata import IMAGENET_STD, Numerics, Preprocess
from effnet.weights import conversion, key_maps
from effnet.weights.formats import Checkpoint, hdf5, keras_writer

ARCHIVE_WEIGHTS, ARCHIVE_CONFIG = "model.weights.h5", "config.json"
MAX_EXPANSION_RATIO = 100  # bytes in memory per byte in the archive, which Keras does not compress
NETWORK_LAYER = re.compile(r"(stem|top)_(conv|bn)|block\d+[a-z]_\w+")
# Defaults of keras.utils.image_dataset_from_directory
FOLDER_PREPROCESS = {"resize": "squash", "crop_fraction": 1.0, "interpolation": "bilinear", "resampling": "tensorflow"}
OPTIMIZER_GROUPS = ("optimizer_weights", "optimizer")


# The tensors of each layer by name, and the names of all layers that the file lists
LayerTensors = tuple[dict[str, dict[str, Tensor]], Sequence[str]]


def read_keras(path: Path) -> Checkpoint:
    """Read the network in a Keras file. Raises ``ValueError`` if it is damaged or another kind of network."""
    with path.open("rb") as file:
        start = file.read(len(hdf5.HDF5_MAGIC))
    if start.startswith(b"PK"):
        weights, text = _read_archive(path)
        config = KerasConfig.from_json(text, path)
        with hdf5.open_hdf5(BytesIO(weights), path) as tree:
            return _build_checkpoint(tree, _read_by_class(tree), config)
    if start != hdf5.HDF5_MAGIC:
        raise ValueError(f"{path}: neither an HDF5 file nor a Keras archive")
    with hdf5.open_hdf5(path, path) as tree:
        json_config = tree.string("", "model_config")
        model = None if json_config is None else KerasConfig.from_json(json_config, path)
        if "model_weights" in tree.groups:
            return _build_checkpoint(tree, _read_by_layer(tree, "model_weights"), model)
        by_layer = tree.string_list("", "layer_names")
        return _build_checkpoint(tree, _read_by_layer(tree, "") if by_layer else _read_by_class(tree), model)


def _build_checkpoint(tree: hdf5.Hdf5Tree, read: LayerTensors, config: "KerasConfig | None") -> Checkpoint:
    path, slots = tree.path, sum(name.split("/")[0] in OPTIMIZER_GROUPS for name in tree.datasets)
    notes = [f"its {slots} optimizer tensors are ignored"] if slots else []
    layers, layer_names = read
    network = {name: tensors for name, tensors in layers.items() if NETWORK_LAYER.fullmatch(name)}
    others = {name: tensors for name, tensors in layers.items() if name not in network}
    normalizations = {name: others.pop(name) for name in list(others) if {"mean", "variance"} <= set(others[name])}
    dense = [name for name, tensors in others.items() if {"kernel"} <= set(tensors) <= {"kernel", "bias"}]
    dense = [name for name in dense if others[name]["kernel"].ndim == 2]
    if not network:
        raise ValueError(f"{path}: contains no EfficientNet of keras.applications; {_list_some_layers(layers)}")
    if len(dense) > 1 or set(others) - set(dense):
        raise ValueError(
            f"{path}: contains {', '.join(sorted(others))} besides the network; "
            "supported is the network alone or followed by one Dense layer"
        )
    if dense:
        network["predictions"] = others[dense[0]]
    numerics = None
    if config is None:
        rescalings = sum(name.startswith("rescaling") for name in layer_names)
        preprocess = preprocess_from_weights(normalizations, rescalings, notes)
    else:
        preprocess = config.preprocess(normalizations, notes)
        numerics = config.numerics()
    if dense and network["predictions"]["kernel"].shape[1] != 1000:  # as all published ones have
        preprocess = {**preprocess, **FOLDER_PREPROCESS}
        notes.append("it has a head of its own: assuming that images are squashed, as Keras does for image folders")
    try:
        Preprocess(**preprocess)
    except ValueError as error:
        raise ValueError(f"{path}: invalid preprocessing: {error}") from None
    tensors = {f"{layer}/{name}": tensor for layer, parts in network.items() for name, tensor in parts.items()}
    return Checkpoint(tensors, layout="keras", preprocess=preprocess, numerics=numerics, notes=tuple(notes))


def _read_by_layer(tree: hdf5.Hdf5Tree, root: str) -> LayerTensors:
    """Read groups that are named after layers; those of a nested model are in its group."""
    found: dict[str, dict[str, Tensor]] = {}
    prefix = f"{root}/" if root else ""
    for name in tree.datasets:
        *groups, variable = name.removeprefix(prefix).split("/")
        if name.startswith(prefix) and groups and groups[0] not in (*OPTIMIZER_GROUPS, "top_level_model_weights"):
            variable = variable.removesuffix(":0").replace("depthwise_kernel", "kernel")
            _add_tensor(found, tree, groups[-1], variable, name)
    return found, tree.string_list(root, "layer_names")


def _read_by_class(tree: hdf5.Hdf5Tree) -> LayerTensors:
    groups = list_groups(tree)
    found: dict[str, dict[str, Tensor]] = {}
    for group in name_groups(groups, tree.path):
        for variable, dataset in group.variables.items():
            _add_tensor(found, tree, group.name, variable, dataset)
    return found, [group.name for group in groups]


def _add_tensor(
    layers: dict[str, dict[str, Tensor]], tree: hdf5.Hdf5Tree, layer: str, variable: str, dataset: str
) -> None:
    tensors = layers.setdefault(layer, {})
    if variable in tensors:
        raise ValueError(
            f"{tree.path}: two tensors are called {layer}/{variable}: only one network per file is supported"
        )
    tensors[variable] = tree.tensor(dataset)


def _read_archive(path: Path) -> tuple[bytes, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if ARCHIVE_WEIGHTS not in names or ARCHIVE_CONFIG not in names:
                raise ValueError(
                    f"{path}: an archive without {ARCHIVE_WEIGHTS} and {ARCHIVE_CONFIG}, which Keras 3 writes"
                )
            for name in (ARCHIVE_WEIGHTS, ARCHIVE_CONFIG):
                info = archive.getinfo(name)
                if info.file_size > MAX_EXPANSION_RATIO * info.compress_size:
                    raise ValueError(f"{path}: {name} has {info.file_size} bytes but stores {info.compress_size}")
            return archive.read(ARCHIVE_WEIGHTS), archive.read(ARCHIVE_CONFIG).decode("utf-8")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path}: a damaged archive ({error})") from None


def _list_some_layers(layers: Iterable[str]) -> str:
    names = sorted(layers)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"its layers are {', '.join(names[:3])}{more}" if names else "it has no layers"


# Groups named after classes and counted: which layer is which? ------------------------------------------------------

# Parts of a path under which there are no weights of a layer
NON_WEIGHT_GROUPS = {"optimizer", "seed_generator", "loss", "metrics", "_metrics", "_compile_metrics", "_loss_tracker"}
VARS_PATTERN = re.compile(r"(?:(?P<container>.*)/)?(?P<group>[^/]+)/vars")


@dataclass(frozen=True)
class LayerGroup:
    """One layer's group. ``variables``: name → path of its dataset."""

    container: str
    kind: str  # "conv2d"
    count: int  # 3 in "conv2d_3"
    name: str  # the layer's if the file states it, otherwise the group's
    variables: dict[str, str]
    shapes: tuple[tuple[int, ...], ...] = ()
    name_stated: bool = True


def list_groups(tree: hdf5.Hdf5Tree) -> list[LayerGroup]:
    """Return every layer's group, in order within its class. Raises ``ValueError`` for unexpected variables."""
    found = []
    for path in tree.groups:
        # Keras 2.13 has another name for "layers"; on Windows it wrote backslashes into the names
        match = VARS_PATTERN.fullmatch(path.replace("\\", "/").replace("_layer_checkpoint_dependencies", "layers"))
        if match and not NON_WEIGHT_GROUPS & set(match[0].split("/")):
            found.append(_read_group(tree, path, match["container"] or "", match["group"]))
    return sorted(found, key=lambda group: (group.container, group.kind, group.count))


def name_groups(groups: list[LayerGroup], path: Path) -> Iterator[LayerGroup]:
    """Yield the groups with weights under their layers' names, as the file states or else by their order."""
    groups = [group for group in groups if group.variables]
    if all(group.name_stated for group in groups):
        yield from groups
        return
    container = max((group.container for group in groups if group.kind == "conv2d"), default=None)
    network = [group for group in groups if group.container == container and group.kind != "normalization"]
    yield from (group for group in groups if group not in network)
    yield from _name_by_order(network, path)


def _read_group(tree: hdf5.Hdf5Tree, path: str, container: str, group: str) -> LayerGroup:
    kind, _, number = group.rpartition("_")
    if not kind or not number.isdigit():
        kind, number = group, "0"
    datasets = {name: f"{path}/{name}" for name in tree.groups[path] if f"{path}/{name}" in tree.datasets}
    known = keras_writer.LAYER_VARIABLES
    variables = known.get(kind, known["dense"])  # a layer stored as an attribute has that name
    expected = (len(variables), len(variables) - 1) if kind in ("conv2d", "dense") else (len(variables),)
    counted = sorted(datasets) == [str(index) for index in range(len(datasets))]
    if datasets and (not counted or (kind in known and len(datasets) not in expected)):
        raise ValueError(f"{tree.path}: {group} has {len(datasets)} tensors, unlike any {kind} of an EfficientNet")
    if len(datasets) > len(variables):
        variables = tuple(datasets)
    name = tree.string(path, "name")
    ordered = {variables[int(index)]: datasets[index] for index in sorted(datasets)}
    shapes = tuple(tree.datasets[dataset].shape for dataset in ordered.values())
    return LayerGroup(container, kind, int(number), name or group, ordered, shapes, name is not None)


def _name_by_order(network: list[LayerGroup], path: Path) -> Iterator[LayerGroup]:
    """Name the layers as in the only network of keras.applications with these classes and shapes."""
    for arch in (ARCHS[name] for name in key_maps.KERAS_ARCHS):
        heads = {0, *(group.shapes[0][-1] for group in network if group.kind == "dense")}
        for classes in sorted(heads, reverse=True):
            expected: dict[str, dict[str, tuple[int, ...]]] = {}
            for name, shape in conversion.layout_shapes("keras", arch, classes).items():
                layer, _, variable = name.partition("/")
                expected.setdefault(layer, {})[variable] = shape
            order = sorted(((layer_class(layer), layer) for layer in expected), key=lambda pair: pair[0])
            shapes = [(kind, tuple(expected[layer].values())) for kind, layer in order]
            if shapes == [(group.kind, group.shapes) for group in network]:
                yield from (replace(group, name=layer) for group, (_, layer) in zip(network, order, strict=True))
                return
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(group.kind for group in network).items()))
    raise ValueError(f"{path}: its layers ({counts or 'none'}) are those of no EfficientNet of keras.applications")


def layer_class(layer: str) -> str:
    """Return the class of one of the network's layers with weights, by its name."""
    if layer.endswith("bn"):
        return "batch_normalization"
    if layer == "predictions":
        return "dense"
    return "depthwise_conv2d" if "dwconv" in layer else "conv2d"


# A model's JSON -------------------------------------------------------------------------------------------------------

MODEL_CLASSES = ("Functional", "Model", "Sequential")
FIRST_LAYER, LAST_LAYER = "stem_conv", "top_activation"
# Before the network: layers that do not change images, at least outside of training
IGNORED_LAYERS = ("InputLayer", "ZeroPadding2D", "Dropout", "GaussianNoise")
HEAD_LAYERS = ("InputLayer", "GlobalAveragePooling2D", "Flatten", "Dropout", "Dense", "Activation", "Softmax")
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
    def from_json(cls, text: str, path: Path) -> "KerasConfig":
        """Parse JSON. Raises ``ValueError`` unless it is an EfficientNet as ours with at most a classifier after it."""
        try:
            layers = tuple(_flatten_layers(json.loads(text)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: its model's JSON cannot be read ({type(error).__name__}: {error})") from None
        indices = {layer.name: index for index, layer in enumerate(layers)}
        if not indices.get(FIRST_LAYER, 1) < indices.get(LAST_LAYER, 0):
            kinds = sorted({layer.kind for layer in layers})
            raise ValueError(f"{path}: contains no EfficientNet of keras.applications; its layers are {kinds}")
        first, last = indices[FIRST_LAYER], indices[LAST_LAYER]
        config = cls(layers[:first], layers[first : last + 1], layers[last + 1 :])
        kinds = [layer.kind for layer in config.after]
        if any(kind not in HEAD_LAYERS for kind in kinds) or kinds.count("Dense") > 1:
            raise ValueError(
                f"{path}: after the network come {', '.join(kinds)}; "
                "supported are global average pooling, dropout and one Dense layer"
            )
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
