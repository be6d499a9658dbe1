"""The three kinds of Keras' files, read into tensors by layer name, and what they say of their pictures.

- ``.h5`` as Keras 2 writes weights, and as Keras 2 and 3 write whole models: groups are called as layers.
- ``.weights.h5``: groups are called as classes, counted in the order of the layers ("conv2d_3"). Newer versions of
  Keras 3 write the layer's name beside it; for older ones the order is that of keras.applications' networks.
- ``.keras``: a ``.weights.h5`` in an archive, with the model as JSON. Of Keras 2.13 the same, with other group names.

Sources: keras-team/keras ``legacy/saving/legacy_h5_format.py``, ``saving/saving_lib.py``.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from torch import Tensor

from effnet.contract import Preprocess
from effnet.weights.formats import hdf5
from effnet.weights.formats.content import Content
from effnet.weights.formats.keras import counted
from effnet.weights.formats.keras.config import Config
from effnet.weights.formats.keras.rescale import preprocess

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
MOST_EXPANSION = 100  # bytes in memory to one in the archive, which Keras does not compress
OURS = re.compile(r"(stem|top)_(conv|bn)|block\d+[a-z]_\w+")
PUBLISHED = 1000  # classes of the published heads
# What keras.utils.image_dataset_from_directory does by default
OF_A_FOLDER = {"resize": "squash", "crop": 1.0, "interpolation": "bilinear", "resampling": "tensorflow"}
OPTIMISER = ("optimizer_weights", "optimizer")


@dataclass
class Held:
    """What a file holds: layer → its tensors by name, and the layers that are named in it, with tensors or without."""

    layers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)


def read(path: Path) -> Content:
    """The network in a file of Keras. Raises ``ValueError`` for a damaged one, or a network of another form."""
    with path.open("rb") as file:
        start = file.read(len(hdf5.MAGIC))
    if start.startswith(b"PK"):
        weights, text = _archive(path)
        config = Config.read(text, path)
        with hdf5.opened(BytesIO(weights), path) as tree:
            return _content(path, _of_classes(tree), config)
    if start != hdf5.MAGIC:
        raise ValueError(f"{path}: neither an HDF5 file nor an archive of Keras")
    with hdf5.opened(path, path) as tree:
        written = tree.text("", "model_config")
        whole = None if written is None else Config.read(written, path)
        if "model_weights" in tree.groups:
            return _content(path, _of_layers(tree, "model_weights"), whole)
        by_layer = tree.texts("", "layer_names")
        return _content(path, _of_layers(tree, "") if by_layer else _of_classes(tree), whole)


def _content(path: Path, held: Held, config: Config | None) -> Content:
    """The network's tensors under the layout's names, and the rest of what the file says."""
    remarks = held.remarks
    network = {name: tensors for name, tensors in held.layers.items() if OURS.fullmatch(name)}
    others = {name: tensors for name, tensors in held.layers.items() if name not in network}
    normalisations = {name: others.pop(name) for name in list(others) if {"mean", "variance"} <= set(others[name])}
    dense = [name for name, tensors in others.items() if _is_dense(tensors)]
    if not network:
        raise ValueError(f"{path}: no EfficientNet of keras.applications is in it; {_some(held)}")
    if len(dense) > 1 or set(others) - set(dense):
        raise ValueError(
            f"{path}: beside the network it holds {', '.join(sorted(others))}; "
            "what is understood is the network alone or with one Dense layer after it"
        )
    if dense:
        network["predictions"] = others[dense[0]]
    numerics = None
    if config is None:
        stated = preprocess(list(normalisations.values()), _rescalings(held), remarks)
    else:
        stated = config.preprocess(normalisations, remarks)
        numerics = config.numerics()
    if dense and network["predictions"]["kernel"].shape[1] != PUBLISHED:
        stated = {**stated, **OF_A_FOLDER}
        remarks.append("a head of its own: its pictures are taken to be squashed, as Keras does to those of a folder")
    try:
        Preprocess(**stated)
    except ValueError as error:
        raise ValueError(f"{path}: what it does to its pictures makes no sense: {error}") from None
    tensors = {f"{layer}/{name}": tensor for layer, parts in network.items() for name, tensor in parts.items()}
    return Content(tensors, layout="keras", preprocess=stated, numerics=numerics, remarks=tuple(remarks))


def _of_layers(tree: hdf5.Tree, root: str) -> Held:
    """Groups that are called as layers; those of a model within the model lie in its group."""
    held = Held(listed=tree.texts(root, "layer_names"))
    at = f"{root}/" if root else ""
    for name in tree.datasets:
        steps = name.removeprefix(at).split("/")
        if name.startswith(at) and len(steps) > 1 and steps[0] not in (*OPTIMISER, "top_level_model_weights"):
            variable = steps[-1].removesuffix(":0").replace("depthwise_kernel", "kernel")
            _keep(held, tree, steps[-2], variable, name)
    _say_optimiser(held, tree)
    return held


def _of_classes(tree: hdf5.Tree) -> Held:
    """Groups that are called as classes and counted."""
    held = Held()
    groups = counted.groups(tree)
    held.listed = tuple(group.name for group in groups)
    for group in counted.named(groups, tree.path):
        for variable, dataset in group.variables.items():
            _keep(held, tree, group.name, variable, dataset)
    _say_optimiser(held, tree)
    return held


def _keep(held: Held, tree: hdf5.Tree, layer: str, variable: str, dataset: str) -> None:
    tensors = held.layers.setdefault(layer, {})
    if variable in tensors:
        raise ValueError(f"{tree.path}: two tensors are called {layer}/{variable}: one network a file is understood")
    tensors[variable] = tree.tensor(dataset)


def _say_optimiser(held: Held, tree: hdf5.Tree) -> None:
    slots = sum(name.split("/")[0] in OPTIMISER for name in tree.datasets)
    if slots:
        held.remarks.append(f"its optimiser's {slots} tensors are left out")


def _archive(path: Path) -> tuple[bytes, str]:
    """The weights and the model's JSON of a ``.keras`` archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if WEIGHTS not in names or CONFIG not in names:
                raise ValueError(f"{path}: an archive without {WEIGHTS} and {CONFIG}, which Keras 3 writes")
            for name in (WEIGHTS, CONFIG):
                entry = archive.getinfo(name)
                if entry.file_size > MOST_EXPANSION * entry.compress_size:
                    raise ValueError(f"{path}: {name} claims {entry.file_size} bytes and holds {entry.compress_size}")
            return archive.read(WEIGHTS), archive.read(CONFIG).decode("utf-8")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path}: a damaged archive ({error})") from None


def _is_dense(tensors: dict[str, Tensor]) -> bool:
    return "kernel" in tensors and tensors["kernel"].ndim == 2 and set(tensors) <= {"kernel", "bias"}


def _rescalings(held: Held) -> int:
    return sum(name.startswith("rescaling") for name in held.listed)


def _some(held: Held) -> str:
    found = sorted(held.layers)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"its layers are {', '.join(found[:3])}{more}" if found else "it holds no layers"
