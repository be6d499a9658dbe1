"""What pickled modules and TorchScript say of the arithmetic that their weights were trained with.

A state dict has the same names whether its convolutions pad as TensorFlow's or as PyTorch's, and whatever ε its batch
norms have. Where the modules themselves are in the file, their classes and attributes tell: `formats.pytorch` lists
them as values, ``blocks.0.0.conv_dw.__class__`` and ``blocks.0.0.conv_dw.stride``. Nothing here is run.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from effnet.arch import Arch, layers, operations
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.weights.detect import Detection
from effnet.weights.formats import Checkpoint
from effnet.weights.key_maps import LAYOUTS

Values = Mapping[str, Any]
CLASS = "__class__"

_ACTIVATIONS = {
    **dict.fromkeys(("SiLU", "Swish", "SwishMe", "SwishJit", "MemoryEfficientSwish", "SiLUActivation"), "silu"),
    **dict.fromkeys(("ReLU6", "ReLU6Activation"), "relu6"),
    "ReLU": "relu",
    **dict.fromkeys(("Hardswish", "HardSwish", "HardSwishMe", "HardSwishJit"), "hard swish"),
    "GELU": "GELU",
    "Mish": "Mish",
    "LeakyReLU": "leaky ReLU",
    "ELU": "ELU",
    "PReLU": "PReLU",
}
# Classes that compute what no network of the family does, with the same tensors as one of it
_OUTSIDE = {
    **dict.fromkeys(("GroupNorm", "GroupNormAct", "GroupNorm1"), "group norm"),
    **dict.fromkeys(("LayerNorm2d", "LayerNormAct2d", "LayerNormAct"), "layer norm"),
    **dict.fromkeys(("InstanceNorm2d",), "instance norm"),
    **dict.fromkeys(("BlurPool2d", "BlurPool"), "blur pooling"),
}
_IN_BLOCKS = re.compile(r"(^|[._])(blocks?|features|stages?|conv_stem|bn[012]|head)([._]|$)")
_IN_SQUEEZE_EXCITE = re.compile(r"(^|[._])(se|squeeze_excite|squeeze)([._]|$)")


# What programs call the names of classes: in a list, or by the number of each
_LABEL_LISTS = {"vocab", "classes", "class_names", "classnames", "label_names", "labels", "categories", "names"}
_LABELS_BY_INDEX = {"idx_to_class", "id2label", "index_to_class", "names", "classes", "class_names"}


@dataclass(frozen=True)
class ModuleEvidence:
    """What the modules of a network state; None where they do not."""

    padding: str | None = None
    bn_eps: float | None = None
    activation: str | None = None
    problems: tuple[str, ...] = ()  # sentences on what no network of the family computes


def read_module_evidence(values: Values) -> ModuleEvidence:
    """Return what the modules of one network state.

    Args:
        values: by name relative to the network, as ``checkpoint.under(prefix).values`` gives them.

    Example:
        >>> read_module_evidence({"bn1.__class__": "torch.nn.modules.batchnorm.BatchNorm2d", "bn1.eps": 1e-5}).bn_eps
        1e-05
    """
    paddings: set[str | None] = set()
    epsilons: set[float] = set()
    activations: set[str] = set()
    problems: dict[str, str] = {}
    for name, kind in _list_modules(values):
        if kind in _OUTSIDE and _IN_BLOCKS.search(name):
            problems[kind] = f"{name} computes {_OUTSIDE[kind]}, which is outside the family"
        elif "BatchNorm" in kind and "1d" not in kind:
            if activation := _find_lost_activation(values, name, kind):
                lost = (
                    f"{name} is a {kind} that leaves out the {activation} it contains, as timm's is after torch's "
                    "convert_sync_batchnorm: if it was not trained so, save the module's state_dict() and open that"
                )
                problems.setdefault("lost", lost)
            eps = values.get(f"{name}.eps")
            epsilons |= {eps} if isinstance(eps, float) and 0 < eps < 1 else set()
        elif "Conv2d" in kind or kind == "Conv":
            paddings.add(_read_padding(values, name, kind))
        elif kind in _ACTIVATIONS and _IN_BLOCKS.search(name) and not _IN_SQUEEZE_EXCITE.search(name):
            activations.add(_ACTIVATIONS[kind])
    paddings.discard(None)
    if len(paddings) > 1:
        problems["padding"] = "its convolutions pad differently, some as TensorFlow's and some as PyTorch's"
    if len(epsilons) > 1:
        listed = " and ".join(f"{eps:g}" for eps in sorted(epsilons))
        problems["eps"] = f"its batch norms have different ε, {listed}"
    return ModuleEvidence(
        _single(paddings), _single(epsilons), _single(activations), tuple(dict.fromkeys(problems.values()))
    )


def complete_numerics(evidence: ModuleEvidence, otherwise: Numerics) -> Numerics | None:
    """Return the numerics that modules state, ``otherwise`` for what they leave open; None if they state nothing."""
    if evidence.padding is None and evidence.bn_eps is None:
        return None
    numerics = replace(otherwise, bn_eps=evidence.bn_eps or otherwise.bn_eps)
    return numerics if evidence.padding is None else replace(numerics, padding=evidence.padding, fused_padding="")


def add_statements(checkpoint: Checkpoint, found: Detection) -> Checkpoint:
    """Return ``checkpoint`` with what the modules of one of its networks, and lists of names beside them, state.

    Padding and ε come from the modules, a pickled network of this package states everything, one of timm its name.
    Names of classes are taken from wherever as many lie as the network has outputs: ``vocab``, ``class_to_idx``, ….
    """
    values = checkpoint.under(found.prefix).values
    own = _read_own_metadata(values)
    default = LAYOUTS[found.layout].numerics(found.arch)
    evidence = read_module_evidence(values)
    numerics = own.get("numerics") or complete_numerics(evidence, checkpoint.numerics or default)
    # An ε alone leaves the padding of timm's to other evidence
    if numerics is not None and (own or evidence.padding is not None or found.layout != "timm"):
        stated_in = {name: where for name, where in checkpoint.stated_in.items() if name != "numerics"}
        checkpoint = replace(checkpoint, numerics=numerics, stated_in=stated_in)
    if own:
        return replace(checkpoint, preprocess=own["preprocess"], labels=own["labels"])
    names = () if checkpoint.labels.names else read_class_names(checkpoint.values, found.classes)
    if names:
        checkpoint = replace(checkpoint, labels=replace(checkpoint.labels, names=names))
    name, tag = (values.get(f"pretrained_cfg.{part}") for part in ("architecture", "tag"))
    if isinstance(name, str) and not checkpoint.arch_name:
        full = f"{name}.{tag}" if isinstance(tag, str) and tag else name
        stated_in = {**checkpoint.stated_in, "arch_name": "its pretrained_cfg"}
        checkpoint = replace(checkpoint, arch_name=full, stated_in=stated_in)
    return checkpoint


def _read_own_metadata(values: Values) -> dict[str, Any]:
    """Return numerics, preprocessing and labels of a pickled `effnet.EfficientNet`; {} for anything else."""
    if values.get(CLASS) != "effnet.net.network.EfficientNet":
        return {}
    stated: dict[str, dict[str, Any]] = {"numerics": {}, "preprocess": {}, "labels": {}}
    for name, value in values.items():
        group, _, field = name.partition(".")
        if group in stated:
            stated[group][field] = value
    try:
        preprocess = Preprocess(**stated["preprocess"])
        return {
            "numerics": Numerics(**stated["numerics"]),
            "preprocess": {field.name: getattr(preprocess, field.name) for field in fields(preprocess)},
            "labels": Labels(**stated["labels"]),
        }
    except (TypeError, ValueError):  # of another version
        return {}


def read_class_names(values: Values, classes: int) -> tuple[str, ...]:
    """Return the names of ``classes`` classes if the file lists them in one place; () otherwise.

    Example:
        >>> read_class_names({"class_to_idx.cat": 1, "class_to_idx.ant": 0}, 2)
        ('ant', 'cat')
    """
    found: set[tuple[str, ...]] = set()
    tables: dict[str, dict[Any, Any]] = {}
    for name, value in values.items():
        parts = name.split(".")
        if isinstance(value, tuple) and _LABEL_LISTS & set(parts) and all(isinstance(text, str) for text in value):
            found.add(value)
        elif isinstance(value, str) and parts[-1].isdecimal() and len(parts) > 1 and parts[-2] in _LABELS_BY_INDEX:
            tables.setdefault(".".join(parts[:-1]), {})[int(parts[-1])] = value
        elif type(value) is int and (place := re.match(r"(?:.*\.)?(?:class_to_idx|label2id|class_to_index)\.", name)):
            tables.setdefault(place[0], {})[value] = name[place.end() :]
    for table in tables.values():
        if table.keys() == set(range(classes)):
            found.add(tuple(table[index] for index in range(classes)))
    named = {names for names in found if len(names) == classes == len(set(names))}
    names = named.pop() if len(named) == 1 else ()
    return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def find_differences(values: Values, arch: Arch, layout: str) -> tuple[str, ...]:
    """Return sentences on modules that compute otherwise than ``arch`` does with the same tensors.

    ``values`` are relative to the network, whose tensors have the names of ``layout``.
    """
    if _read_own_metadata(values):
        return ()
    evidence = read_module_evidence(values)
    found = list(evidence.problems)
    if evidence.activation not in (None, arch.activation):
        found.append(f"its blocks compute {evidence.activation}, those of {arch.name} {arch.activation}")
    theirs = LAYOUTS[layout].key_map(arch, 0)
    for layer in layers(arch, classes=0):
        for operation in operations(layer):
            tensor = theirs.get(f"{operation.name}.conv.weight") or theirs.get(f"{operation.name}.weight", "")
            module = tensor.rpartition(".")[0]
            stride, dilation = _read_side(values.get(f"{module}.stride")), _read_side(values.get(f"{module}.dilation"))
            if stride not in (None, operation.stride):
                found.append(f"{module} has a stride of {stride}, in {arch.name} it is {operation.stride}")
            if dilation not in (None, 1):
                found.append(f"{module} is dilated by {dilation}")
    return tuple(found)


def _list_modules(values: Values) -> Iterator[tuple[str, str]]:
    """Yield the name of each module, and its class without the module of Python that it is in."""
    for name, kind in values.items():
        if name.endswith(f".{CLASS}") and isinstance(kind, str):
            yield name.removesuffix(f".{CLASS}"), kind.rpartition(".")[2]


def _read_padding(values: Values, name: str, kind: str) -> str | None:
    """Return how a convolution with a stride pads; None if it has none, or is padded by something else."""
    if kind == "Conv":  # this package's
        return {True: "same", False: "symmetric"}.get(values.get(f"{name}.same", ""))
    stride, kernel = (_read_side(values.get(f"{name}.{attribute}")) for attribute in ("stride", "kernel_size"))
    if stride == 1 or kernel == 1:
        return None
    if "Same" in kind:  # timm's Conv2dSame, Conv2dStaticSamePadding of EfficientNet-PyTorch
        return "same"
    padding = _read_side(values.get(f"{name}.padding"))
    return "symmetric" if padding and (kernel is None or padding == (kernel - 1) // 2) else None


def _find_lost_activation(values: Values, name: str, kind: str) -> str | None:
    """Return the class of the activation that a batch norm holds and does not compute; None if there is none.

    timm's batch norms compute an activation of theirs (``BatchNormAct2d``, ``SyncBatchNormAct``, …). What converts them
    to other classes, `torch.nn.SyncBatchNorm.convert_sync_batchnorm` above all, moves it along as a child that is not
    called. The module then computes without any activation, and its tensors have the same names.
    """
    inner = values.get(f"{name}.act.{CLASS}")
    if "Act" in kind or not isinstance(inner, str) or inner.endswith(".Identity"):
        return None
    return inner.rpartition(".")[2]


def _read_side(value: Any) -> int | None:
    """Return one number for ``2``, ``(2, 2)``; None for anything else."""
    if isinstance(value, tuple) and value and all(side == value[0] for side in value):
        value = value[0]
    return value if type(value) is int else None


def _single(found: set[Any]) -> Any:
    return next(iter(found)) if len(found) == 1 else None


# TorchScript ---------------------------------------------------------------------------------------------------------

_MANGLED = re.compile(r"\.___torch_mangle_\d+")
_CLASS_START = re.compile(r"^class (\w+)\(", re.M)
_PAIR = r"[\[(](\d{1,4}), (\d{1,4})[\])]"
# A scripted class states its constants; a traced one has them in its calls
_FINAL = re.compile(rf"^  (stride|padding|kernel_size|dilation) : Final\[[^\n]{{1,99}}\] = {_PAIR}$", re.M)
_FINAL_EPS = re.compile(r"^  eps : Final\[float\] = (\d{1,20}\.?\d{0,30}(?:e-?\d{1,4})?)$", re.M)
_CONVOLUTION = re.compile(rf"torch\._convolution\((?:[^,\[]{{1,99}}, ){{3}}{_PAIR}, {_PAIR}, {_PAIR}")
_BATCH_NORM = re.compile(r"torch\.batch_norm\((?:[^,()]{1,99}, ){7}(\d{1,20}\.?\d{0,30}(?:e-?\d{1,4})?), ")


def read_script(code: Mapping[str, str], values: Values) -> dict[str, Any]:
    """Return the classes and attributes of TorchScript's modules, read from the text of their programs.

    Args:
        code: path → text, ``__torch__/torch/nn/modules/conv.py``.
        values: with the class of every module, as its archive names it.

    Returns:
        ``NAME.__class__`` without TorchScript's additions to the name, ``NAME.stride``, ``NAME.eps``, …
    """
    attributes: dict[str, dict[str, Any]] = {}
    bodies: dict[str, dict[str, str]] = {}  # of each file's classes
    found: dict[str, Any] = {}
    for name, kind in values.items():
        if isinstance(kind, str) and (name == CLASS or name.endswith(f".{CLASS}")):
            if kind not in attributes:
                module, _, short = kind.rpartition(".")
                path = f"__torch__/{module.replace('.', '/')}.py"
                if path not in bodies:
                    bodies[path] = _split_classes(code.get(path, ""))
                attributes[kind] = dict(_read_script_class(short, bodies[path].get(short, "")))
            before = name.removesuffix(CLASS)
            found[name] = _MANGLED.sub("", kind)
            found |= {f"{before}{attribute}": value for attribute, value in attributes[kind].items()}
    return found


def _split_classes(text: str) -> dict[str, str]:
    """Return the text of each class in a program."""
    starts = [*_CLASS_START.finditer(text)]
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return {start[1]: text[start.start() : end] for start, end in zip(starts, ends, strict=False)}


def _read_script_class(name: str, body: str) -> Iterator[tuple[str, Any]]:
    """Yield what the program of a class says of its convolution or batch norm."""
    if "Conv2d" in name:
        yield from ((found[1], (int(found[2]), int(found[3]))) for found in _FINAL.finditer(body))
        calls = {found.groups() for found in _CONVOLUTION.finditer(body)}
        if len(calls) == 1:
            numbers = [int(number) for number in calls.pop()]
            yield from zip(
                ("stride", "padding", "dilation"), zip(numbers[::2], numbers[1::2], strict=True), strict=True
            )
    if "BatchNorm" in name:
        epsilons = {float(found[1]) for find in (_FINAL_EPS, _BATCH_NORM) for found in find.finditer(body)}
        yield from (("eps", eps) for eps in epsilons if len(epsilons) == 1)
