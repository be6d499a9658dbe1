"""Keras files, read without Keras: ``.h5`` of Keras 2 and 3, ``.weights.h5`` and ``.keras``.

This is our own code because Keras rebuilds a model from its JSON, which takes TensorFlow and can run code in the file.

- ``.h5``, as Keras 2 writes weights and Keras 2 and 3 whole models: groups are named after layers.
- ``.weights.h5``: groups are named after classes and counted in the order of the layers ("conv2d_3"). Newer versions of
  Keras 3 write the layer's name too; for older ones the order is that of keras.applications' networks.
- ``.keras``: a ``.weights.h5`` in an archive, with the model as JSON. Keras 2.13 has other group names.

Sources: keras-team/keras ``legacy/saving/legacy_h5_format.py``, ``saving/saving_lib.py``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from torch import Tensor

from effnet.arch import ARCHS
from effnet.arch.serde import MAX_JSON_BYTES
from effnet.data.storage.archive import open_zip
from effnet.metadata import Labels, Preprocess
from effnet.weights import conversion, key_maps
from effnet.weights.formats import Checkpoint, graph_facts, hdf5, keras_config, keras_writer

ARCHIVE_WEIGHTS, ARCHIVE_CONFIG = "model.weights.h5", "config.json"
MAX_EXPANSION_RATIO = 100  # bytes in memory per byte in the archive, which Keras does not compress
NETWORK_LAYER = re.compile(r"(stem|top)_(conv|bn)|block\d+[a-z]_\w+")
OPTIMIZER_GROUPS = ("optimizer_weights", "optimizer")


# The tensors of each layer by name, and the names of all layers that the file lists
LayerTensors = tuple[dict[str, dict[str, Tensor]], Sequence[str]]


def read_keras(path: Path) -> Checkpoint:
    """Read the network in a Keras file. Raises ``ValueError`` if it is damaged or another kind of network."""
    with path.open("rb") as file:
        start = file.read(len(hdf5.HDF5_MAGIC))
    if start.startswith(b"PK"):
        weights, text = _read_archive(path)
        config = keras_config.KerasConfig.from_json(text, path)
        with hdf5.open_hdf5(BytesIO(weights), path) as tree:
            return _build_checkpoint(tree, _read_by_class(tree), config)
    if start != hdf5.HDF5_MAGIC:
        raise ValueError(f"{path}: neither an HDF5 file nor a Keras archive")
    with hdf5.open_hdf5(path, path) as tree:
        json_config = tree.string("", "model_config")
        model = None if json_config is None else keras_config.KerasConfig.from_json(json_config, path)
        if "model_weights" in tree.groups:
            return _build_checkpoint(tree, _read_by_layer(tree, "model_weights"), model)
        by_layer = tree.string_list("", "layer_names")
        return _build_checkpoint(tree, _read_by_layer(tree, "") if by_layer else _read_by_class(tree), model)


def _build_checkpoint(tree: hdf5.Hdf5Tree, read: LayerTensors, config: keras_config.KerasConfig | None) -> Checkpoint:
    path, slots = tree.path, sum(name.split("/")[0] in OPTIMIZER_GROUPS for name in tree.datasets)
    notes = [f"its {slots} optimizer tensors are ignored"] if slots else []
    layers, layer_names = read
    network = {name: tensors for name, tensors in layers.items() if NETWORK_LAYER.fullmatch(name)}
    others = {name: tensors for name, tensors in layers.items() if name not in network}
    normalizations = {name: others.pop(name) for name in list(others) if {"mean", "variance"} <= set(others[name])}
    if not network:
        raise ValueError(f"{path}: contains no EfficientNet of keras.applications; {_list_some_layers(layers)}")
    head = keras_config.read_head(others, None if config is None else config.after)
    if head.tensors:
        network["predictions"] = dict(head.tensors)
    notes += head.notes
    numerics = None
    if config is None:
        rescalings = sum(name.startswith("rescaling") for name in layer_names)
        preprocess = keras_config.preprocess_from_weights(normalizations, rescalings, notes)
    else:
        preprocess = config.preprocess(normalizations, notes)
        numerics = config.numerics()
    published = head.tensors and head.tensors["kernel"].shape[1] == 1000  # as all published ones have
    if others and not published:
        preprocess = {**preprocess, **graph_facts.KERAS_FOLDER_PREPROCESS}
        notes.append("it has a head of its own: assuming that images are squashed, as Keras does for image folders")
    try:
        Preprocess(**preprocess)
    except ValueError as error:
        raise ValueError(f"{path}: invalid preprocessing: {error}") from None
    tensors = {f"{layer}/{name}": tensor for layer, parts in network.items() for name, tensor in parts.items()}
    labels = Labels(task=head.task)
    return Checkpoint(tensors, {}, "keras", preprocess, numerics, labels, tuple(notes))


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


def _read_archive(path: Path) -> tuple[bytes, bytes]:
    with open_zip(path) as archive:
        if ARCHIVE_WEIGHTS not in archive or ARCHIVE_CONFIG not in archive:
            raise ValueError(f"{path}: an archive without {ARCHIVE_WEIGHTS} and {ARCHIVE_CONFIG}, which Keras 3 writes")
        for name in (ARCHIVE_WEIGHTS, ARCHIVE_CONFIG):
            size, stored = archive.member_size(name), archive.stored_size(name)
            if size > MAX_EXPANSION_RATIO * stored:
                raise ValueError(f"{path}: {name} has {size} bytes but stores {stored}")
        return archive.read(ARCHIVE_WEIGHTS), archive.read(ARCHIVE_CONFIG, MAX_JSON_BYTES)


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
