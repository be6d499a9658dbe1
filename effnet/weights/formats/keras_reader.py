"""What the layers before a Keras network do to its pictures: Rescaling and Normalization, made into mean and std.

Keras' users feed pixels of 0 … 255; each layer takes x to scale · x + offset, a number a channel. V1 with
``weights="imagenet"`` has a second Rescaling by 1/√std, because the published files hold ImageNet's standard deviations
where the layer expects their squares (keras-team/keras ``applications/efficientnet.py``; tensorflow#49930).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from effnet.arch import ARCHS
from effnet.metadata import IMAGENET_STD, Numerics, Preprocess
from effnet.weights.conversion import layout_shapes
from effnet.weights.formats import hdf5
from effnet.weights.formats.checkpoint import Checkpoint
from effnet.weights.formats.hdf5 import Hdf5Tree
from effnet.weights.formats.keras_writer import LAYER_VARIABLES
from effnet.weights.key_maps import KERAS_ARCHS

Floats = NDArray[np.float64]


V1_STD_NOTE = (
    "its stored variance is ImageNet's standard deviation, as in the published files, which Keras loads into a network "
    'that rescales once more (weights="imagenet"): taken so'
)


@dataclass(frozen=True)
class Affine:
    """x → scale · x + offset, a number each or one a channel."""

    scale: Floats
    offset: Floats

    def then(self, other: Affine) -> Affine:
        """This one first, then ``other``."""
        return Affine(self.scale * other.scale, self.offset * other.scale + other.offset)

    def preprocess(self, channels: int) -> dict[str, Any]:
        """Mean and std for values in [0, 1], of what takes values of 0 … 255 to the network's own."""
        with np.errstate(all="ignore"):  # what is infinite then is complained about as any other nonsense
            std = 1 / (255 * self.scale)
            mean = 0 - self.offset * std
        return {"mean": _round_to_seven_digits(mean, channels), "std": _round_to_seven_digits(std, channels)}


IDENTITY = Affine(np.ones(()), np.zeros(()))


def rescaling_affine(scale: Any, offset: Any) -> Affine:
    """What a Rescaling layer does."""
    return Affine(np.asarray(scale, np.float64), np.asarray(offset, np.float64))


def normalization_affine(mean: Any, variance: Any) -> Affine:
    """What a Normalization layer does: (x − mean) / √variance."""
    with np.errstate(all="ignore"):
        std = np.maximum(np.sqrt(np.asarray(variance, np.float64).reshape(-1)), 1e-7)
    return Affine(1 / std, -np.asarray(mean, np.float64).reshape(-1) / std)


def preprocess_from_weights(
    normalizations: Sequence[Mapping[str, Tensor]], rescalings: int, notes: list[str]
) -> dict[str, Any]:
    """Mean and std of V1, whose weights hold them; nothing of V2, whose weights do not.

    ``rescalings``: how many Rescaling layers the file lists. Files of weights do not say what these do.
    """
    if len(normalizations) != 1:
        return {}
    mean, variance = (normalizations[0][name].double().numpy() for name in ("mean", "variance"))
    done = rescaling_affine(1 / 255, 0).then(normalization_affine(mean, variance))
    published = np.shape(variance) == (3,) and np.allclose(variance, IMAGENET_STD, rtol=1e-5)
    if published and rescalings < 2:
        notes.append(V1_STD_NOTE)
    if published or rescalings > 1:
        done = done.then(rescaling_affine(1 / np.sqrt(IMAGENET_STD), 0))
    return done.preprocess(len(mean))


def _round_to_seven_digits(values: Floats, channels: int) -> tuple[float, ...]:
    """What is left of a float32: 0.229, not 0.22900000214576721."""
    return tuple(float(f"{value:.7g}") for value in np.broadcast_to(values.reshape(-1), (channels,)))


# What the JSON of a whole Keras model says: its layers in order, a model within the model opened into its own.


MODEL_CLASSES = ("Functional", "Model", "Sequential")


ZERO_PADDING = "ZeroPadding2D"


FIRST_LAYER, LAST_LAYER = "stem_conv", "top_activation"


# Before the network: what leaves pictures as they are, at least outside of training
IGNORED_LAYERS = ("InputLayer", ZERO_PADDING, "Dropout", "GaussianNoise")


HEAD_LAYERS = ("InputLayer", "GlobalAveragePooling2D", "Flatten", "Dropout", "Dense", "Activation", "Softmax")


SWISH_NAMES = ("swish", "silu")


ANY_SIZE_NOTE = (
    "built for no input size, Keras pads as for even maps: its answers are those of this network only where every map "
    "that is halved is even (sides of 32, 64, 96 … are safe)"
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
    def from_json(cls, text: str, path: Path) -> KerasConfig:
        """From JSON. Raises ``ValueError`` for a model that is not an EfficientNet with at most a classifier after."""
        try:
            layers = tuple(_flatten_layers(json.loads(text)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: its model's JSON cannot be read ({type(error).__name__}: {error})") from None
        places = {layer.name: place for place, layer in enumerate(layers)}
        if not places.get(FIRST_LAYER, 1) < places.get(LAST_LAYER, 0):
            kinds = sorted({layer.kind for layer in layers})
            raise ValueError(f"{path}: no EfficientNet of keras.applications is in it; its layers are {kinds}")
        first, last = places[FIRST_LAYER], places[LAST_LAYER]
        found = cls(layers[:first], layers[first : last + 1], layers[last + 1 :])
        found.check(path)
        return found

    def check(self, path: Path) -> None:
        """Raises ``ValueError`` for what the network here would not do."""
        kinds = [layer.kind for layer in self.after]
        if any(kind not in HEAD_LAYERS for kind in kinds) or kinds.count("Dense") > 1:
            raise ValueError(
                f"{path}: after the network come {', '.join(kinds)}; "
                "what is understood is global average pooling, dropout and one Dense layer"
            )
        said = {str(layer.config.get("activation")) for layer in self.within if layer.kind == "Activation"}
        if said - set(SWISH_NAMES):
            raise ValueError(f"{path}: its activation is {', '.join(sorted(said))}, where EfficientNet's is swish")
        if len(self._epsilons()) > 1:
            raise ValueError(f"{path}: its batch norms have more than one epsilon: {sorted(self._epsilons())}")

    def numerics(self) -> Numerics:
        """Keras' padding, and the ε that the JSON states."""
        return Numerics("same", max(self._epsilons(), default=1e-3))

    def preprocess(self, normalizations: Mapping[str, Mapping[str, Tensor]], notes: list[str]) -> dict[str, Any]:
        """What the layers before the network do to pixels of 0 … 255, and the size that it was built for.

        ``normalisations``: layer → the tensors of those that learnt their mean and variance.
        """
        done, left_out = IDENTITY, []
        for layer in self.before:
            if layer.kind == "Rescaling":
                done = done.then(
                    rescaling_affine(_unwrap_array(layer.config["scale"]), _unwrap_array(layer.config["offset"]))
                )
            elif layer.kind == "Normalization":
                said: Mapping[str, Any] = normalizations.get(layer.name, layer.config)
                done = done.then(normalization_affine(_unwrap_array(said["mean"]), _unwrap_array(said["variance"])))
            elif layer.kind not in IGNORED_LAYERS and not layer.kind.startswith("Random"):
                left_out.append(layer.kind)
        if left_out:
            notes.append(f"layers before the network that are not understood are left out: {', '.join(left_out)}")
        if done is IDENTITY:
            notes.append("no preprocessing is in it: its pictures are taken to be scaled to -1 … 1, as Keras says")
            done = rescaling_affine(1 / 127.5, -1)
        shapes = self._input_shapes()
        stated = done.preprocess(next((shape[2] for shape in shapes if shape[2]), 3))
        if shapes and not all(shapes[-1]) and ZERO_PADDING in {layer.kind for layer in (*self.before, *self.within)}:
            notes.append(ANY_SIZE_NOTE)
        sizes = [shape[:2] for shape in shapes if all(shape)]
        return {**stated, "size": sizes[-1]} if sizes else stated

    def _input_shapes(self) -> list[tuple[Any, ...]]:
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


def _flatten_layers(said: Any) -> Iterator[KerasLayer]:
    """The layers of a model, and of the models within it, in order."""
    config = said["config"]
    inner: Any = config.get("layers") if isinstance(config, dict) else config  # the first Sequential was a mere list
    if said["class_name"] in MODEL_CLASSES or isinstance(inner, list):
        for layer in inner:
            yield from _flatten_layers(layer)
    else:
        yield KerasLayer(said["class_name"], config.get("name") or said["name"], config)


def _unwrap_array(said: Any) -> Any:
    """Numbers out of what Keras wraps around arrays: {"class_name": "__numpy__", "config": {"value": …}}."""
    if isinstance(said, Tensor):
        return said.double().numpy()
    while isinstance(said, Mapping):
        said = said["config"] if "config" in said else said["value"]
    return said


# Keras 3's groups, called as classes and counted, and which layer each of them is.


# Parts of a path under which no layer's weights lie
NON_WEIGHT_GROUPS = {"optimizer", "seed_generator", "loss", "metrics", "_metrics", "_compile_metrics", "_loss_tracker"}


VARS_PATTERN = re.compile(r"(?:(?P<container>.*)/)?(?P<group>[^/]+)/vars")


@dataclass(frozen=True)
class LayerGroup:
    """One layer's group. ``variables``: name → path of its dataset."""

    container: str
    kind: str  # "conv2d"
    count: int  # 3 in "conv2d_3"
    name: str  # the layer's, where the file says it; the group's otherwise
    variables: dict[str, str]
    shapes: tuple[tuple[int, ...], ...] = ()
    name_stated: bool = True  # whether the file says the name


def list_groups(tree: Hdf5Tree) -> list[LayerGroup]:
    """Every layer's group, in order within its class. Raises ``ValueError`` for a layer with other variables."""
    found = []
    for path in tree.groups:
        # Keras 2.13 calls the layers otherwise; on Windows it wrote the other slash into the names
        match = VARS_PATTERN.fullmatch(path.replace("\\", "/").replace("_layer_checkpoint_dependencies", "layers"))
        if match and not NON_WEIGHT_GROUPS & set(match[0].split("/")):
            found.append(_read_group(tree, path, match["container"] or "", match["group"]))
    return sorted(found, key=lambda group: (group.container, group.kind, group.count))


def name_groups(found: list[LayerGroup], path: Path) -> Iterator[LayerGroup]:
    """Those with weights, under their layers' names: as the file says, or else by their order."""
    weighty = [group for group in found if group.variables]
    if all(group.name_stated for group in weighty):
        yield from weighty
        return
    container = max((group.container for group in weighty if group.kind == "conv2d"), default=None)
    inside = [group for group in weighty if group.container == container and group.kind != "normalization"]
    yield from (group for group in weighty if group not in inside)
    yield from _name_by_order(inside, path)


def _read_group(tree: Hdf5Tree, path: str, container: str, group: str) -> LayerGroup:
    kind, _, number = group.rpartition("_")
    if not kind or not number.isdigit():
        kind, number = group, "0"
    datasets = {name: f"{path}/{name}" for name in tree.groups[path] if f"{path}/{name}" in tree.datasets}
    variables = LAYER_VARIABLES.get(
        kind, LAYER_VARIABLES["dense"]
    )  # a layer that is its model's attribute bears its name
    expected = (len(variables), len(variables) - 1) if kind in ("conv2d", "dense") else (len(variables),)
    if datasets and (
        sorted(datasets) != [str(index) for index in range(len(datasets))]
        or (kind in LAYER_VARIABLES and len(datasets) not in expected)
    ):
        raise ValueError(f"{tree.path}: {group} holds {len(datasets)} tensors, which no {kind} of an EfficientNet does")
    if len(datasets) > len(variables):
        variables = tuple(datasets)
    told = tree.string(path, "name")
    ordered = {variables[int(index)]: datasets[index] for index in sorted(datasets)}
    sides = tuple(tree.datasets[name].shape for name in ordered.values())
    return LayerGroup(container, kind, int(number), told or group, ordered, sides, told is not None)


def _name_by_order(inside: list[LayerGroup], path: Path) -> Iterator[LayerGroup]:
    """The layers of the one network in keras.applications whose classes and shapes these are."""
    for arch in (ARCHS[name] for name in KERAS_ARCHS):
        for classes in sorted({0, *(group.shapes[0][-1] for group in inside if group.kind == "dense")}, reverse=True):
            expected: dict[str, dict[str, tuple[int, ...]]] = {}
            for name, shape in layout_shapes("keras", arch, classes).items():
                layer, _, variable = name.partition("/")
                expected.setdefault(layer, {})[variable] = shape
            order = _sort_by_class(expected)
            if [(group.kind, group.shapes) for group in inside] == [
                (kind, tuple(expected[layer].values())) for kind, layer in order
            ]:
                yield from (replace(group, name=layer) for group, (_, layer) in zip(inside, order, strict=True))
                return
    kinds = {kind: sum(group.kind == kind for group in inside) for kind in sorted({group.kind for group in inside})}
    counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    raise ValueError(f"{path}: its layers ({counts or 'none'}) are those of no EfficientNet of keras.applications")


def _sort_by_class(layers: Iterable[str]) -> list[tuple[str, str]]:
    """(class, layer) of the network's layers, classes in the order of the alphabet."""
    return sorted(((layer_class(layer), layer) for layer in layers), key=lambda pair: pair[0])


def layer_class(layer: str) -> str:
    """The class of one of the network's layers that have weights, by its name."""
    if layer.endswith("bn"):
        return "batch_normalization"
    if layer == "predictions":
        return "dense"
    return "depthwise_conv2d" if "dwconv" in layer else "conv2d"


# The three kinds of Keras' files, read into tensors by layer name, and what they say of their pictures.
#
# - ``.h5`` as Keras 2 writes weights, and as Keras 2 and 3 write whole models: groups are called as layers.
# - ``.weights.h5``: groups are called as classes, counted in the order of the layers ("conv2d_3"). Newer versions of
#   Keras 3 write the layer's name beside it; for older ones the order is that of keras.applications' networks.
# - ``.keras``: a ``.weights.h5`` in an archive, with the model as JSON. Of Keras 2.13 the same, with other group names.
#
# Sources: keras-team/keras ``legacy/saving/legacy_h5_format.py``, ``saving/saving_lib.py``.


ARCHIVE_WEIGHTS, ARCHIVE_CONFIG = "model.weights.h5", "config.json"


MAX_EXPANSION_RATIO = 100  # bytes in memory to one in the archive, which Keras does not compress


NETWORK_LAYER = re.compile(r"(stem|top)_(conv|bn)|block\d+[a-z]_\w+")


PUBLISHED_CLASSES = 1000  # classes of the published heads


# What keras.utils.image_dataset_from_directory does by default
IMAGE_FOLDER_PREPROCESS = {
    "resize": "squash",
    "crop_fraction": 1.0,
    "interpolation": "bilinear",
    "resampling": "tensorflow",
}


OPTIMIZER_GROUPS = ("optimizer_weights", "optimizer")


@dataclass
class LayerTensors:
    """What a file holds: layer → its tensors by name, and the layers that are named in it, with tensors or without."""

    layers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    layer_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def read_keras(path: Path) -> Checkpoint:
    """The network in a file of Keras. Raises ``ValueError`` for a damaged one, or a network of another form."""
    with path.open("rb") as file:
        start = file.read(len(hdf5.HDF5_MAGIC))
    if start.startswith(b"PK"):
        weights, text = _read_archive(path)
        config = KerasConfig.from_json(text, path)
        with hdf5.open_hdf5(BytesIO(weights), path) as tree:
            return _build_checkpoint(path, _read_by_class(tree), config)
    if start != hdf5.HDF5_MAGIC:
        raise ValueError(f"{path}: neither an HDF5 file nor an archive of Keras")
    with hdf5.open_hdf5(path, path) as tree:
        written = tree.string("", "model_config")
        whole = None if written is None else KerasConfig.from_json(written, path)
        if "model_weights" in tree.groups:
            return _build_checkpoint(path, _read_by_layer(tree, "model_weights"), whole)
        by_layer = tree.string_list("", "layer_names")
        return _build_checkpoint(path, _read_by_layer(tree, "") if by_layer else _read_by_class(tree), whole)


def _build_checkpoint(path: Path, held: LayerTensors, config: KerasConfig | None) -> Checkpoint:
    """The network's tensors under the layout's names, and the rest of what the file says."""
    remarks = held.notes
    network = {name: tensors for name, tensors in held.layers.items() if NETWORK_LAYER.fullmatch(name)}
    others = {name: tensors for name, tensors in held.layers.items() if name not in network}
    normalisations = {name: others.pop(name) for name in list(others) if {"mean", "variance"} <= set(others[name])}
    dense = [name for name, tensors in others.items() if _is_dense(tensors)]
    if not network:
        raise ValueError(f"{path}: no EfficientNet of keras.applications is in it; {_list_some_layers(held)}")
    if len(dense) > 1 or set(others) - set(dense):
        raise ValueError(
            f"{path}: beside the network it holds {', '.join(sorted(others))}; "
            "what is understood is the network alone or with one Dense layer after it"
        )
    if dense:
        network["predictions"] = others[dense[0]]
    numerics = None
    if config is None:
        stated = preprocess_from_weights(list(normalisations.values()), _count_rescalings(held), remarks)
    else:
        stated = config.preprocess(normalisations, remarks)
        numerics = config.numerics()
    if dense and network["predictions"]["kernel"].shape[1] != PUBLISHED_CLASSES:
        stated = {**stated, **IMAGE_FOLDER_PREPROCESS}
        remarks.append("a head of its own: its pictures are taken to be squashed, as Keras does to those of a folder")
    try:
        Preprocess(**stated)
    except ValueError as error:
        raise ValueError(f"{path}: what it does to its pictures makes no sense: {error}") from None
    tensors = {f"{layer}/{name}": tensor for layer, parts in network.items() for name, tensor in parts.items()}
    return Checkpoint(tensors, layout="keras", preprocess=stated, numerics=numerics, notes=tuple(remarks))


def _read_by_layer(tree: hdf5.Hdf5Tree, root: str) -> LayerTensors:
    """Groups that are called as layers; those of a model within the model lie in its group."""
    held = LayerTensors(layer_names=tree.string_list(root, "layer_names"))
    at = f"{root}/" if root else ""
    for name in tree.datasets:
        steps = name.removeprefix(at).split("/")
        if name.startswith(at) and len(steps) > 1 and steps[0] not in (*OPTIMIZER_GROUPS, "top_level_model_weights"):
            variable = steps[-1].removesuffix(":0").replace("depthwise_kernel", "kernel")
            _add_tensor(held, tree, steps[-2], variable, name)
    _note_optimizer(held, tree)
    return held


def _read_by_class(tree: hdf5.Hdf5Tree) -> LayerTensors:
    """Groups that are called as classes and counted."""
    held = LayerTensors()
    groups = list_groups(tree)
    held.layer_names = tuple(group.name for group in groups)
    for group in name_groups(groups, tree.path):
        for variable, dataset in group.variables.items():
            _add_tensor(held, tree, group.name, variable, dataset)
    _note_optimizer(held, tree)
    return held


def _add_tensor(held: LayerTensors, tree: hdf5.Hdf5Tree, layer: str, variable: str, dataset: str) -> None:
    tensors = held.layers.setdefault(layer, {})
    if variable in tensors:
        raise ValueError(f"{tree.path}: two tensors are called {layer}/{variable}: one network a file is understood")
    tensors[variable] = tree.tensor(dataset)


def _note_optimizer(held: LayerTensors, tree: hdf5.Hdf5Tree) -> None:
    slots = sum(name.split("/")[0] in OPTIMIZER_GROUPS for name in tree.datasets)
    if slots:
        held.notes.append(f"its optimiser's {slots} tensors are left out")


def _read_archive(path: Path) -> tuple[bytes, str]:
    """The weights and the model's JSON of a ``.keras`` archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if ARCHIVE_WEIGHTS not in names or ARCHIVE_CONFIG not in names:
                raise ValueError(
                    f"{path}: an archive without {ARCHIVE_WEIGHTS} and {ARCHIVE_CONFIG}, which Keras 3 writes"
                )
            for name in (ARCHIVE_WEIGHTS, ARCHIVE_CONFIG):
                entry = archive.getinfo(name)
                if entry.file_size > MAX_EXPANSION_RATIO * entry.compress_size:
                    raise ValueError(f"{path}: {name} claims {entry.file_size} bytes and holds {entry.compress_size}")
            return archive.read(ARCHIVE_WEIGHTS), archive.read(ARCHIVE_CONFIG).decode("utf-8")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path}: a damaged archive ({error})") from None


def _is_dense(tensors: dict[str, Tensor]) -> bool:
    return "kernel" in tensors and tensors["kernel"].ndim == 2 and set(tensors) <= {"kernel", "bias"}


def _count_rescalings(held: LayerTensors) -> int:
    return sum(name.startswith("rescaling") for name in held.layer_names)


def _list_some_layers(held: LayerTensors) -> str:
    found = sorted(held.layers)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"its layers are {', '.join(found[:3])}{more}" if found else "it holds no layers"


# Keras' files: ``.h5`` of Keras 2 and 3, ``.weights.h5`` and ``.keras``, read and written without Keras.
