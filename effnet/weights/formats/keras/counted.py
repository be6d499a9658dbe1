"""Keras 3's groups, called as classes and counted, and which layer each of them is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from effnet.arch import ARCHS
from effnet.weights.conversion import shapes
from effnet.weights.formats.hdf5 import Tree
from effnet.weights.layouts import keras

# class → its variables in the order in which Keras counts them
VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
    "normalization": ("mean", "variance", "count"),
}
# Parts of a path under which no layer's weights lie
ASIDE = {"optimizer", "seed_generator", "loss", "metrics", "_metrics", "_compile_metrics", "_loss_tracker"}
VARS = re.compile(r"(?:(?P<container>.*)/)?(?P<group>[^/]+)/vars")


@dataclass(frozen=True)
class Group:
    """One layer's group. ``variables``: name → path of its dataset."""

    container: str
    kind: str  # "conv2d"
    count: int  # 3 in "conv2d_3"
    name: str  # the layer's, where the file says it; the group's otherwise
    variables: dict[str, str]
    shapes: tuple[tuple[int, ...], ...] = ()
    told: bool = True  # whether the file says the name


def groups(tree: Tree) -> list[Group]:
    """Every layer's group, in order within its class. Raises ``ValueError`` for a layer with other variables."""
    found = []
    for path in tree.groups:
        # Keras 2.13 calls the layers otherwise; on Windows it wrote the other slash into the names
        match = VARS.fullmatch(path.replace("\\", "/").replace("_layer_checkpoint_dependencies", "layers"))
        if match and not ASIDE & set(match[0].split("/")):
            found.append(_group(tree, path, match["container"] or "", match["group"]))
    return sorted(found, key=lambda group: (group.container, group.kind, group.count))


def named(found: list[Group], path: Path) -> Iterator[Group]:
    """Those with weights, under their layers' names: as the file says, or else by their order."""
    weighty = [group for group in found if group.variables]
    if all(group.told for group in weighty):
        yield from weighty
        return
    container = max((group.container for group in weighty if group.kind == "conv2d"), default=None)
    inside = [group for group in weighty if group.container == container and group.kind != "normalization"]
    yield from (group for group in weighty if group not in inside)
    yield from _by_order(inside, path)


def _group(tree: Tree, path: str, container: str, group: str) -> Group:
    kind, _, number = group.rpartition("_")
    if not kind or not number.isdigit():
        kind, number = group, "0"
    datasets = {name: f"{path}/{name}" for name in tree.groups[path] if f"{path}/{name}" in tree.datasets}
    variables = VARIABLES.get(kind, VARIABLES["dense"])  # a layer that is its model's attribute bears its name
    expected = (len(variables), len(variables) - 1) if kind in ("conv2d", "dense") else (len(variables),)
    if datasets and (
        sorted(datasets) != [str(index) for index in range(len(datasets))]
        or (kind in VARIABLES and len(datasets) not in expected)
    ):
        raise ValueError(f"{tree.path}: {group} holds {len(datasets)} tensors, which no {kind} of an EfficientNet does")
    if len(datasets) > len(variables):
        variables = tuple(datasets)
    told = tree.text(path, "name")
    ordered = {variables[int(index)]: datasets[index] for index in sorted(datasets)}
    sides = tuple(tree.datasets[name].shape for name in ordered.values())
    return Group(container, kind, int(number), told or group, ordered, sides, told is not None)


def _by_order(inside: list[Group], path: Path) -> Iterator[Group]:
    """The layers of the one network in keras.applications whose classes and shapes these are."""
    for arch in (ARCHS[name] for name in keras.ARCHS):
        for classes in sorted({0, *(group.shapes[0][-1] for group in inside if group.kind == "dense")}, reverse=True):
            expected: dict[str, dict[str, tuple[int, ...]]] = {}
            for name, shape in shapes("keras", arch, classes).items():
                layer, _, variable = name.partition("/")
                expected.setdefault(layer, {})[variable] = shape
            order = _sorted(expected)
            if [(group.kind, group.shapes) for group in inside] == [
                (kind, tuple(expected[layer].values())) for kind, layer in order
            ]:
                yield from (replace(group, name=layer) for group, (_, layer) in zip(inside, order, strict=True))
                return
    kinds = {kind: sum(group.kind == kind for group in inside) for kind in sorted({group.kind for group in inside})}
    counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    raise ValueError(f"{path}: its layers ({counts or 'none'}) are those of no EfficientNet of keras.applications")


def _sorted(layers: Iterable[str]) -> list[tuple[str, str]]:
    """(class, layer) of the network's layers, classes in the order of the alphabet."""
    return sorted(((kind_of(layer), layer) for layer in layers), key=lambda pair: pair[0])


def kind_of(layer: str) -> str:
    """The class of one of the network's layers that have weights, by its name."""
    if layer.endswith("bn"):
        return "batch_normalization"
    if layer == "predictions":
        return "dense"
    return "depthwise_conv2d" if "dwconv" in layer else "conv2d"
