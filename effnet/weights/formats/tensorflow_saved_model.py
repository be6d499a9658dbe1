"""TensorFlow's SavedModel folders, read without TensorFlow: of Keras 2 and 3, ``tf.Module`` and TF Hub.

The names in such a folder are those of Python attributes, different for each way to write it, and variables are called
"kernel" a hundred times. So the graph that serves is walked: its functions are followed into each other, its variables
are read from the checkpoint in the folder, and each operator is translated for `graph_walk`. Nothing is executed.

Sources: TensorFlow ``core/protobuf/saved_model.proto``, ``meta_graph.proto``, ``core/framework/graph.proto``,
``function.proto``, ``node_def.proto``, ``attr_value.proto``, ``tensor.proto``.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.weights.formats import Checkpoint, graph_facts, graph_network, graph_walk, onnx_reader, tensorflow

GRAPH_FILE, INDEX_FILE = "saved_model.pb", "variables/variables.index"
MAX_DEPTH = 32  # of functions that call each other
MAX_ELEMENTS = 2**28  # of a constant
Array = NDArray[Any]
# Numbers of types.proto → (numpy's type, the field of a TensorProto that holds single values)
CONSTANT_TYPES = {1: ("<f4", 5), 2: ("<f8", 6), 3: ("<i4", 7), 9: ("<i8", 10), 10: ("?", 11)}
DEFAULT_EPSILON = 1e-4  # of a FusedBatchNorm that does not state it
STRING_TYPE, STRING_FIELD = 7, 8
VALUE_KEY = ".ATTRIBUTES/VARIABLE_VALUE"  # after the path of a variable in a graph of Python objects
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# TensorFlow's operators that are ONNX's but for their names
RENAMED = {
    "AddV2": "Add",
    "BiasAdd": "Add",
    "RealDiv": "Div",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mean": "GlobalAveragePool",
    "Max": "ReduceMax",
    "Sum": "ReduceSum",
    "StopGradient": "Identity",
    "IdentityN": "Identity",
    "ExpandDims": "Unsqueeze",
}


def is_saved_model(folder: Path) -> bool:
    """Return whether ``folder`` is a SavedModel with variables."""
    return (folder / GRAPH_FILE).is_file() and (folder / INDEX_FILE).is_file()


def read_saved_model(index: Path) -> Checkpoint:
    """Read the network that the graph of a SavedModel serves, with what the graph states (see `onnx_reader`).

    ``index``: the folder's ``variables/variables.index``. Raises ``ValueError`` if it is damaged, or no EfficientNet.
    """
    folder = index.parent.parent
    try:
        return _decode((folder / GRAPH_FILE).read_bytes(), tensorflow.open_variables(index, allow_objects=True))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    except (*onnx_reader.WALK_ERRORS, RecursionError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: damaged, or a graph unlike any that is known ({reason})") from None


def _decode(content: bytes, variables: tensorflow.Variables) -> Checkpoint:
    meta_graph = _Message(content).message(2)
    graph = meta_graph.message(2)
    functions = {each.message(1).text(1): each for each in graph.message(2).messages(1)}
    nodes = [_read_node(each) for each in graph.messages(1)]
    keys = _checkpoint_keys(nodes, functions)
    name, tensor, outputs = _serving_signature(meta_graph)
    shape = tuple(
        size if size > 0 else 0 for size in (_signed(each.number(1)) for each in tensor.message(3).messages(2))
    )
    source = graph_network.GraphInput("UINT8" if tensor.number(2) == 4 else "FLOAT", shape)
    reader = _GraphReader(functions, variables, keys, _captured_keys(meta_graph.message(7)))
    start = graph_walk.Value(source.size, image=graph_facts.InputTransform())
    reader.walk.values[name] = start
    with np.errstate(all="ignore"):  # damaged constants may be anything
        reader.run(_needed_for(outputs, nodes))
    if not reader.walk.convolutions:
        raise ValueError("there are no convolutions in the graph that it serves")
    return graph_network.build_checkpoint(reader.walk, reader.names, source, reader.walk.answers)


# Protocol buffers ------------------------------------------------------------------------------------------------


class _Message:
    """A message's fields by their numbers."""

    def __init__(self, content: bytes) -> None:
        self._fields = defaultdict[int, list[int | bytes]](list)
        for number, value in tensorflow.read_fields(content):
            self._fields[number].append(value)

    def messages(self, field: int) -> list["_Message"]:
        return [_Message(value) for value in self._fields[field] if isinstance(value, bytes)]

    def message(self, field: int) -> "_Message":
        found = self.messages(field)
        return found[-1] if found else _Message(b"")

    def texts(self, field: int) -> list[str]:
        return [value.decode(errors="replace") for value in self._fields[field] if isinstance(value, bytes)]

    def text(self, field: int) -> str:
        found = self.texts(field)
        return found[-1] if found else ""

    def raw(self, field: int) -> list[int | bytes]:
        return self._fields[field]

    def number(self, field: int) -> int:
        values = [value for value in self._fields[field] if isinstance(value, int)]
        return values[-1] if values else 0

    def mapping(self, field: int) -> dict[str, "_Message"]:
        return {entry.text(1): entry.message(2) for entry in self.messages(field)}


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


@dataclass(frozen=True)
class _Node:
    name: str
    kind: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, _Message]


def _read_node(message: _Message) -> _Node:
    return _Node(message.text(1), message.text(2), tuple(message.texts(3)), message.mapping(5))


def _read_constant(tensor: _Message) -> Array | list[str] | None:
    """Return the array of a TensorProto, or its strings; None for other types."""
    kind, shape = tensor.number(1), tuple(_signed(each.number(1)) for each in tensor.message(2).messages(2))
    if kind == STRING_TYPE:
        return tensor.texts(STRING_FIELD)
    if kind not in CONSTANT_TYPES or prod(shape) > MAX_ELEMENTS:
        return None
    dtype, single = CONSTANT_TYPES[kind]
    if content := next((value for value in tensor.raw(4) if isinstance(value, bytes) and value), b""):
        return np.frombuffer(content, dtype).reshape(shape)
    values = [_unpack(value, dtype) for value in tensor.raw(single)]
    stored = np.concatenate(values) if values else np.zeros(1, dtype)
    return stored.reshape(shape) if stored.size == prod(shape) else np.full(shape, stored[-1], dtype)


def _unpack(value: int | bytes, dtype: str) -> Array:
    """Return the numbers of a repeated field: packed, or a single one."""
    if isinstance(value, int):
        size = np.dtype(dtype).itemsize
        return np.frombuffer((value % 2 ** (8 * size)).to_bytes(size, "little"), dtype)
    if dtype.startswith("<f"):
        return np.frombuffer(value, dtype)
    numbers, at = [], 0
    while at < len(value):
        number, at = tensorflow.read_varint(value, at)
        numbers.append(_signed(number))
    return np.array(numbers, dtype)


def _serving_signature(meta_graph: _Message) -> tuple[str, _Message, list[str]]:
    """Return the name and the TensorInfo of the image that the default signature takes, and names of its outputs."""
    signatures = meta_graph.mapping(5)
    ordered = sorted(signatures.items(), key=lambda item: item[0] != "serving_default")
    for _, signature in ordered:
        inputs = list(signature.mapping(1).values())
        if len(inputs) == 1 and inputs[0].text(1):
            return inputs[0].text(1), inputs[0], [each.text(1) for each in signature.mapping(2).values()]
    raise ValueError(
        "it serves no signature with one input; save it with tf.saved_model.save(network, folder, signatures=…)"
    )


def _checkpoint_keys(nodes: Sequence[_Node], functions: Mapping[str, _Message]) -> dict[str, str]:
    """Return variable (a node of the graph) → key in the checkpoint, from the function that restores them."""
    by_name = {node.name: node for node in nodes}
    for call in nodes:
        function = functions.get(_called(call))
        if function is None:
            continue
        inner = [_read_node(each) for each in function.messages(3)]
        restore = next((each for each in inner if each.kind == "RestoreV2"), None)
        if restore is None:
            continue
        constants = {
            each.name: _read_constant(each.attributes["value"].message(8)) for each in inner if each.kind == "Const"
        }
        keys = constants.get(_node_of(restore.inputs[1]))
        arguments = [each.text(1) for each in function.message(1).messages(2)]
        bound = dict(zip(arguments, call.inputs, strict=False))
        restored = {each.name: each for each in inner}
        found = {}
        for each in inner:
            if each.kind == "AssignVariableOp" and isinstance(keys, list):
                place = each.inputs[1]
                while restored[_node_of(place)].kind == "Identity":
                    place = restored[_node_of(place)].inputs[0]
                variable = _node_of(bound.get(each.inputs[0], ""))
                if variable in by_name and _node_of(place) == restore.name:
                    found[variable] = keys[int(place.rpartition(":")[2])]
        if found:
            return found
    return {}


def _captured_keys(objects: _Message) -> dict[str, list[str]]:
    """Return function → keys in the checkpoint of what it captures, "" for what is no variable.

    A key is the shortest path of attributes from the root to the variable. Source: TensorFlow
    ``python/checkpoint/trackable_view.py`` and ``python/trackable/trackable_utils.py``.
    """
    children = [[(each.number(1), each.text(2)) for each in node.messages(1)] for node in objects.messages(1)]
    paths, queue = {0: ""}, [0]
    for parent in queue:  # breadth first: the queue grows
        for child, name in children[parent] if parent < len(children) else ():
            if child not in paths:
                paths[child] = f"{paths[parent]}{name.replace('.', '..').replace('/', '.S')}/"
                queue.append(child)
    bound = {name: _numbers(function.raw(2)) for name, function in objects.mapping(2).items()}
    return {name: [f"{paths.get(i, '')}{VALUE_KEY}" for i in captured] for name, captured in bound.items()}


def _numbers(values: Sequence[int | bytes]) -> tuple[int, ...]:
    return tuple(int(number) for value in values for number in _unpack(value, "<i8"))


def _called(node: _Node) -> str:
    """Return the name of the function that ``node`` calls."""
    return node.attributes["f"].message(10).text(1) if node.kind in CALLS and "f" in node.attributes else ""


def _node_of(reference: str) -> str:
    return reference.removeprefix("^").partition(":")[0]


def _canonical(reference: str) -> str:
    """Return ``node:index`` of "node", "node:2" (in a graph) or "node:output:2" (in a function)."""
    name, _, rest = reference.partition(":")
    return f"{name}:{rest.rpartition(':')[2] or 0}"


# The graph -----------------------------------------------------------------------------------------------------------


@dataclass
class _GraphReader:
    """Translates a graph's operators for a `graph_walk.OperatorWalk`, following functions into each other."""

    functions: Mapping[str, _Message]
    variables: tensorflow.Variables
    keys: Mapping[str, str]  # of variables that a function of the graph restores
    captured: Mapping[str, Sequence[str]]  # function → keys of its last arguments
    walk: graph_walk.OperatorWalk = field(default_factory=lambda: graph_walk.OperatorWalk({}))
    names: list[str] = field(default_factory=list)  # of operators
    _made_by: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # tensor → operator and its inputs
    _resources: dict[str, str] = field(default_factory=dict)  # tensor → variable
    _keys: dict[str, str] = field(default_factory=dict)  # of variables that functions capture
    _aliases: dict[str, str] = field(default_factory=dict)  # a function's argument or result → the tensor it is

    def run(self, nodes: Sequence[_Node], prefix: str = "", depth: int = 0) -> None:
        """Process the operators that a call, or the whole graph, consists of, in an order in which they can run."""
        if depth > MAX_DEPTH:
            raise ValueError("its functions call each other endlessly")
        for node in _sorted_by_inputs(nodes):
            inputs = tuple(self._resolve(prefix, name) for name in node.inputs if not name.startswith("^"))
            self._step(node, inputs, prefix, depth)

    def _resolve(self, prefix: str, reference: str) -> str:
        """Return the tensor that ``reference`` means in the function with this prefix."""
        name = f"{prefix}{_canonical(reference)}"
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def _step(self, node: _Node, inputs: tuple[str, ...], prefix: str, depth: int) -> None:
        out = f"{prefix}{node.name}:0"
        self.names.append(node.name)
        self._made_by[out] = node.kind, inputs
        constants = self.walk.constants
        if (called := _called(node)) in self.functions:
            captured = self.captured.get(called, ())
            for name, key in zip(inputs[len(inputs) - len(captured) :], captured, strict=False):
                self._keys.setdefault(self._resources.get(name, ""), key)
            self._call(self.functions[called], inputs, f"{prefix}{node.name}/", out.removesuffix("0"), depth)
        elif node.kind == "VarHandleOp":
            self._resources[out] = node.name
        elif node.kind == "ReadVariableOp":
            variable = self._resources.get(inputs[0], "")
            key = self.keys.get(variable) or self._keys.get(variable, variable)  # TensorFlow 1 names it in both
            tensor = self.variables.read_tensor(key) if key in self.variables.entries else None
            if tensor is not None:
                constants[out] = tensor.float().numpy()
        elif node.kind == "Const":
            stored = _read_constant(node.attributes["value"].message(8))
            if isinstance(stored, np.ndarray):
                constants[out] = stored
        elif node.kind == "Mul" and self._inverse(inputs) is not None:
            pass  # half of a batch norm
        elif norm := self._batch_norm(inputs) if RENAMED.get(node.kind) == "Add" else None:
            self.walk.step(graph_walk.Node("BatchNormalization", norm[0], out, {"epsilon": norm[1]}))
        elif node.kind in ("Placeholder", "NoOp"):
            pass
        else:
            for each in self._translate(node, inputs, out):
                self.walk.step(each)
        if node.kind == "IdentityN":
            for index, name in enumerate(inputs):
                self._aliases[f"{prefix}{node.name}:{index}"] = name

    def _call(self, function: _Message, inputs: tuple[str, ...], prefix: str, out: str, depth: int) -> None:
        for argument, name in zip(function.message(1).messages(2), inputs, strict=False):
            self._aliases[f"{prefix}{argument.text(1)}:0"] = name
        self.run([_read_node(each) for each in function.messages(3)], prefix, depth + 1)
        results = {entry.text(1): entry.text(2) for entry in function.messages(4)}
        for index, result in enumerate(function.message(1).messages(3)):
            if reference := results.get(result.text(1)):
                self._aliases[f"{out}{index}"] = self._resolve(prefix, reference)

    def _inverse(self, inputs: tuple[str, ...]) -> tuple[str, str] | None:
        """Return (map, factor) if one of two inputs is a batch norm's γ / √(variance + ε), and the other a map."""
        for factor, other in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
            if other not in self.walk.constants and self._factor(factor) is not None:
                return other, factor
        return None

    def _factor(self, name: str) -> tuple[str, str, float] | None:
        """Return γ ("" for none), variance and ε of the constant γ / √(variance + ε)."""
        kind, inputs = self._made_by.get(name, ("", ()))
        if kind == "Rsqrt":
            added, terms = self._made_by.get(inputs[0], ("", ()))
            if RENAMED.get(added, added) == "Add" and terms[1] in self.walk.constants:
                return "", terms[0], float(self.walk.constants[terms[1]].reshape(-1)[0])
        for root, gamma in (inputs, inputs[::-1]) if kind == "Mul" else ():
            if self._made_by.get(root, ("",))[0] == "Rsqrt" and (found := self._factor(root)):
                return gamma, *found[1:]
        return None

    def _batch_norm(self, inputs: tuple[str, ...]) -> tuple[tuple[str, ...], float] | None:
        """Return the inputs and ε of the batch norm that ends in this addition: x · factor + (β − mean · factor)."""
        for product, shift in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
            kind, terms = self._made_by.get(product, ("", ()))
            half = self._inverse(terms) if kind == "Mul" else None
            minus, parts = self._made_by.get(shift, ("", ()))
            if half is None or minus != "Sub":
                continue
            times, factors = self._made_by.get(parts[1], ("", ()))
            mean = next((name for name in factors if name != half[1]), "") if times == "Mul" else ""
            gamma, variance, eps = self._factor(half[1]) or ("", "", 0.0)
            if mean and half[1] in factors:
                if not gamma:
                    gamma = f"{variance}/ones"
                    self.walk.constants[gamma] = np.ones_like(self.walk.constants[variance])
                return (half[0], gamma, parts[0], mean, variance), eps
        return None

    def _translate(self, node: _Node, inputs: tuple[str, ...], out: str) -> Iterator[graph_walk.Node]:
        """Yield ONNX's operators for one of TensorFlow's."""
        kind, constants = RENAMED.get(node.kind, node.kind), self.walk.constants
        attributes: dict[str, Any] = {}
        if kind in ("Conv2D", "DepthwiseConv2dNative"):
            if inputs[1] not in constants:
                raise ValueError(f"the weights of {node.name} are computed, which is not read here")
            order = (3, 2, 0, 1) if kind == "Conv2D" else (2, 3, 0, 1)  # to (out, in, height, width)
            weight = f"{out}/weight"
            constants[weight] = constants[inputs[1]].transpose(order)
            groups = 1 if kind == "Conv2D" else len(constants[weight])
            attributes = {**_window(node), "group": groups}
            yield graph_walk.Node("Conv", (inputs[0], weight), out, attributes)
        elif kind.startswith("FusedBatchNorm"):
            bits = node.attributes["epsilon"].number(4) if "epsilon" in node.attributes else 0
            epsilon = struct.unpack("<f", bits.to_bytes(4, "little"))[0] if bits else DEFAULT_EPSILON
            yield graph_walk.Node("BatchNormalization", inputs, out, {"epsilon": float(f"{epsilon:.7g}")})
        elif kind == "MatMul":
            attributes = (
                {"transB": bool(node.attributes["transpose_b"].number(5))} if "transpose_b" in node.attributes else {}
            )
            yield graph_walk.Node("Gemm", inputs, out, attributes)
        elif kind == "Relu6":
            yield graph_walk.Node("Clip", inputs, out, {"min": 0, "max": 6})
        elif kind in ("Pad", "PadV2", "MirrorPad"):
            pads = constants.get(inputs[1]) if kind != "MirrorPad" else None
            if pads is not None and pads.shape == (4, 2):
                attributes = {"pads": pads[[0, 3, 1, 2]].T.reshape(-1).tolist()}  # (N, H, W, C) -> (N, C, H, W)
            yield graph_walk.Node("Pad", inputs[:1], out, attributes)
        else:
            if kind == "Transpose" and inputs[1] in constants:
                attributes = {"perm": constants[inputs[1]].tolist()}
                inputs = inputs[:1]
            yield graph_walk.Node(kind, inputs, out, attributes)


def _window(node: _Node) -> dict[str, Any]:
    """Return strides, dilations and padding of a convolution."""

    def numbers(name: str) -> tuple[int, ...]:
        return _numbers(node.attributes[name].message(1).raw(3)) if name in node.attributes else ()

    last = "data_format" not in node.attributes or node.attributes["data_format"].text(2) != "NCHW"
    spatial = slice(1, 3) if last else slice(2, 4)
    found: dict[str, Any] = {"strides": numbers("strides")[spatial], "dilations": numbers("dilations")[spatial] or (1,)}
    padding = node.attributes["padding"].text(2)
    if padding == "EXPLICIT":
        pairs = np.array(numbers("explicit_paddings")).reshape(4, 2)[spatial]
        return {**found, "pads": tuple(pairs.T.reshape(-1).tolist())}
    return {**found, "auto_pad": "SAME_UPPER" if padding == "SAME" else "VALID"}


def _needed_for(outputs: Sequence[str], nodes: Sequence[_Node]) -> list[_Node]:
    """Return the nodes that the outputs are computed from."""
    by_name, needed, waiting = {node.name: node for node in nodes}, set[str](), [_node_of(name) for name in outputs]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            waiting += (_node_of(each) for each in by_name[name].inputs if not each.startswith("^"))
    return [node for node in nodes if node.name in needed]


def _sorted_by_inputs(nodes: Sequence[_Node]) -> Iterator[_Node]:
    """Yield nodes after those that they depend on; stored order otherwise."""
    by_name, done, busy = {node.name: node for node in nodes}, set[str](), set[str]()
    for first in nodes:
        stack = [first]
        while stack:
            node = stack[-1]
            if node.name in done:
                stack.pop()
                continue
            busy.add(node.name)
            names = (_node_of(each) for each in node.inputs if not each.startswith("^"))
            waiting = [by_name[name] for name in names if name in by_name and name not in done]
            if any(each.name in busy for each in waiting):
                raise ValueError("its graph goes in circles")
            if waiting:
                stack.extend(waiting)
                continue
            done.add(node.name)
            busy.discard(node.name)
            stack.pop()
            yield node
