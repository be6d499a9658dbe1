"""ONNX files of any exporter, read as weights: torch.onnx (traced or dynamo), tf2onnx, this package.

Which network it is, is read from what the graph computes (`graph_walk`). Batch norm that was kept stays batch norm, to
the bit. Padding comes from the convolutions, mean and std from what is done to the image before the first of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.serde import import_extra
from effnet.metadata import ModelMetadata
from effnet.weights.formats import METADATA_KEY, Checkpoint, graph_facts, graph_network, graph_walk

IO_SPEC_KEY = "effnet.interface"  # what an exported file takes and gives, as `effnet.runtime.io_spec` writes it
# What a graph that is damaged, or unlike any that is known, makes Python raise
WALK_ERRORS = (LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)


def read_onnx(path: Path) -> Checkpoint:
    """Read the weights in an ONNX file, and what its graph states: padding, ε, mean and std, what the outputs are.

    Batch norm is kept where the file has it; elsewhere it only adds the bias. Weights stored as integers (QDQ) are
    dequantized, within half a step of the original. A softmax at the end is left out.

    Raises:
        ValueError: The file is damaged, or its convolutions are those of no EfficientNet: with the nearest one.
        ImportError: The package onnx is not installed.

    Source: https://onnx.ai/onnx/operators.
    """
    onnx, model, weights = load_onnx(path)
    try:
        return _decode(onnx, model, weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except WALK_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged, or a graph unlike any that is known ({reason})") from None


def load_onnx(path: Path) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Return the module onnx, the ``ModelProto`` in a file, with its functions written out, and its weights by name.

    Raises as `read_onnx` does.
    """
    onnx = import_extra("onnx", "export", "reading ONNX files requires")
    try:
        model = onnx.load(path)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return onnx, model, {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    except Exception as error:  # protobuf's, onnx's and numpy's have no common class
        raise ValueError(f"{path}: not an ONNX file that can be read ({str(error).partition(chr(10))[0]})") from None


def read_input_transform(onnx: Any, model: Any, weights: dict[str, np.ndarray]) -> graph_facts.InputTransform | None:
    """Return what a graph does to the image before its first convolution; None if that is unknown."""
    _, walk = _start_walk(onnx, model, weights)
    with np.errstate(all="ignore"), suppress(ValueError, *WALK_ERRORS):  # behind the first one it may compute anything
        for node in model.graph.node:
            if walk.image is None:
                walk.step(_read_node(onnx, node))
    return walk.image.image if walk.image else None


def _start_walk(
    onnx: Any, model: Any, weights: dict[str, np.ndarray]
) -> tuple[graph_network.GraphInput, graph_walk.OperatorWalk]:
    """Return the image of a graph, and the walk over its operators before the first step."""
    images = [each for each in model.graph.input if each.name not in weights]
    if not images:
        raise ValueError("it has no input")
    image = images[0].type.tensor_type
    kind = onnx.TensorProto.DataType.Name(image.elem_type)
    source = graph_network.GraphInput(kind, tuple(each.dim_value for each in image.shape.dim))
    start = graph_walk.Value(source.size, source.channels_last, image=graph_facts.InputTransform())
    return source, graph_walk.OperatorWalk(dict(weights), {images[0].name: start})


def _decode(onnx: Any, model: Any, weights: dict[str, np.ndarray]) -> Checkpoint:
    graph = model.graph
    source, walk = _start_walk(onnx, model, weights)
    with np.errstate(all="ignore"):  # damaged constants may be anything
        for node in graph.node:
            walk.step(_read_node(onnx, node))
    if not walk.convolutions:
        raise ValueError("there are no convolutions in it")
    stated = {each.key: each.value for each in model.metadata_props}
    if METADATA_KEY in stated and IO_SPEC_KEY in stated:
        return _own_checkpoint(walk, stated)
    return graph_network.build_checkpoint(walk, _list_names(graph), source, (each.name for each in graph.output))


def _read_node(onnx: Any, node: Any) -> graph_walk.Node:
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    for name, value in attributes.items():
        if isinstance(value, onnx.TensorProto):
            attributes[name] = onnx.numpy_helper.to_array(value)
    if node.op_type == "Cast":
        attributes["to"] = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    return graph_walk.Node(node.op_type, tuple(node.input), node.output[0] if node.output else "", attributes)


def _list_names(graph: Any) -> Iterator[str]:
    yield from (each.name for each in graph.initializer)
    for node in graph.node:
        yield from (node.name, *node.input)


def _own_checkpoint(walk: graph_walk.OperatorWalk, stated: Mapping[str, str]) -> Checkpoint:
    """Return the weights of a file that this package exported, whose metadata say all that its graph does not."""
    metadata = ModelMetadata.from_json(stated[METADATA_KEY])
    if graph_facts.takes_pixels(stated[IO_SPEC_KEY]):
        stem = walk.convolutions[0]
        std = np.array(metadata.preprocess.std)[:, None, None] * 255  # which the export has folded into the kernels
        stem.weight = (stem.weight.astype(np.float64) * std).astype(np.float32)
    arch, notes = graph_network.match_arch(walk, [metadata.arch]), graph_network.rounding_note(walk)
    tensors = graph_network.name_tensors(walk, arch, metadata.numerics.bn_eps, notes)
    return Checkpoint(tensors, {METADATA_KEY: stated[METADATA_KEY]}, "effnet", notes=tuple(notes))
