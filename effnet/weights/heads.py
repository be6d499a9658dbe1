"""What follows the backbone: which linear layer, with batch norm around it folded, is the network's classifier.

A file of weights does not say how its layers are connected. One linear layer on the embedding, alone or with one batch
norm before and one after it, can only be the classifier. With several linear layers, another pooling or layers of other
kinds the network may compute anything: then the backbone is read without a classifier.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from effnet.weights import key_maps

Tensors = Mapping[str, torch.Tensor]

TORCH_EPS, KERAS_EPS = 1e-5, 1e-3  # defaults of ``nn.BatchNorm1d`` and of Keras' ``BatchNormalization``
# Modules that carry numbers and do not take part in the answer
_BOOKKEEPING = re.compile(r"loss|criteri|metric|accuracy|optim|sched|scaler|callbacks", re.I)
# Parts of a weight that PyTorch composes: weight normalization, spectral normalization
_PARAMETRIZED = {"weight_g", "weight_v", "weight_orig", "original", "original0", "original1"}
# Classes of pickled modules that take part in the answer and have no tensors. Sources: torch, timm, fastai
_ACTIVATIONS = re.compile(r"\.(\w*ReLU6?|\w*Swish\w*|SiLU|GELU|ELU|CELU|SELU|Mish|Tanh|Sigmoid|Softplus)$", re.I)
_OTHER_POOLINGS = re.compile(r"\.(Adaptive(Concat|CatAvg|AvgMax|Max)\w*|GeM\w*|\w*MaxPool2d)$", re.I)


@dataclass(frozen=True)
class Head:
    """The classifier that was found: weight (classes, channels) and bias (classes,), or None.

    ``name`` is the linear layer's in the file, ``names`` are the tensors taken, ``choices`` the linear layers on the
    embedding, and ``note`` says why there is no classifier.
    """

    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    name: str = ""
    names: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    note: str = ""


@dataclass
class _Module:
    name: str  # without the last separator
    names: dict[str, str] = field(default_factory=dict)  # "weight", "bias", "running_mean", … → in the file
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return "linear", "norm", "pooling", "other", or "" if it takes no part in the answer."""
        shapes = {name: tensor.ndim for name, tensor in self.tensors.items()}
        weight = self.tensors.get("weight")
        if {"running_mean", "running_var"} <= set(shapes):
            return "norm" if set(shapes.values()) == {1} else "other"
        if weight is None:
            if _PARAMETRIZED & set(shapes):
                return "other"
            return "pooling" if set(shapes) == {"p"} and self.tensors["p"].numel() == 1 else ""
        if weight.ndim == 2 and weight.numel() and set(shapes) <= {"weight", "bias"} and shapes.get("bias", 1) == 1:
            return "linear"
        if set(shapes) == {"weight"} and weight.ndim == 1:  # weights of a loss; a PReLU has them too
            return "other" if weight.numel() == 1 else ""
        return "other" if weight.is_floating_point() and weight.ndim else ""


def find_head(
    tensors: Tensors,
    network: str,
    channels: int,
    layout: key_maps.Layout,
    wanted: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> Head:
    """Find the classifier of a backbone, first among the tensors of its own module, then of those around it.

    Args:
        tensors: all tensors of the file that are of no backbone.
        network: the prefix of the backbone's module, "" or with its last dot.
        channels: of the embedding.
        layout: of the backbone.
        wanted: the linear layer that the user named; the last parts of its name are enough.
        values: what the file states of its modules: ε of batch norm.

    Raises:
        ValueError: if ``wanted`` is no linear layer on the embedding.
    """
    modules = list(_group(tensors, layout))
    for scope in _scopes(network):
        inside = [each for each in modules if each.name.startswith(scope) or f"{each.name}." == scope]
        layers = [each for each in inside if each.kind and not _BOOKKEEPING.search(each.name.removeprefix(scope))]
        choices = [each for each in layers if each.kind == "linear" and each.tensors["weight"].shape[1] == channels]
        if wanted is not None:
            choices = [each for each in choices if each.name == wanted or each.name.endswith(f".{wanted}")]
        if choices:
            return _choose(choices, layers, channels, layout, wanted is not None, values or {}, scope)
    if wanted is not None:
        raise ValueError(f"{wanted} is no linear layer of {channels} inputs: --head takes the name of one")
    layers = [each for each in modules if each.kind and not _BOOKKEEPING.search(each.name)]
    if not layers:
        return Head()
    return Head(note=f"opened without a classifier: no layer of {_list(layers)} is a linear one of {channels} inputs")


def _choose(
    choices: list[_Module],
    layers: list[_Module],
    channels: int,
    layout: key_maps.Layout,
    named: bool,
    values: Mapping[str, Any],
    scope: str,
) -> Head:
    names = tuple(each.name for each in choices)
    linear = choices[0]
    norms = [each for each in layers if each.kind == "norm"]
    others = [each for each in layers if each is not linear and each.kind != "norm"]
    classes = linear.tensors["weight"].shape[0]
    before, after = _place_norms(norms, linear, channels, classes)
    strange = [each for each in norms if each not in (before, after)]
    if layout.folds_batch_norm and not re.fullmatch(r"\d+_linear", linear.name):
        others.append(linear)  # an activation follows it
    if named:
        before = before if before and _container(before) == _container(linear) else None
        after = after if after and _container(after) == _container(linear) else None
    elif len(choices) > 1:
        return Head(
            choices=names, note=f"opened without a classifier: {' or '.join(names)} could be it, choose with --head"
        )
    elif others or strange or (silent := _find_silent_layer(linear, scope, values, layout)):
        parts = _list([*choices, *others, *strange]) if others or strange else f"{linear.name} and {silent}"
        return Head(
            choices=names,
            note=f"opened without a classifier: {parts} together are no linear layer; --head {linear.name} would take "
            "this one alone",
        )
    weight, bias = linear.tensors["weight"], linear.tensors.get("bias")
    bias = torch.zeros(classes, dtype=weight.dtype) if bias is None else bias
    for norm in filter(None, (before, after)):
        weight, bias = _fold(weight, bias, norm, norm is before, _eps(norm, layout, values))
    taken = [name for each in (linear, before, after) if each for name in each.names.values()]
    return Head(weight, bias, linear.name, tuple(taken), names)


def _find_silent_layer(linear: _Module, scope: str, values: Mapping[str, Any], layout: key_maps.Layout) -> str:
    """Return the module without tensors that makes the head another one, of a pickled network; "" if there is none.

    An activation before the linear layer, in the same ``nn.Sequential``, or another pooling beside the backbone.
    """
    container = _container(linear)
    is_sequential = str(values.get(f"{container}.__class__", "")).endswith(".Sequential")
    backbone = re.compile(rf"{re.escape(scope)}(.*\.)?({re.escape(layout.root) or '(?!)'}|{layout.backbone})")
    for name, kind in values.items():
        module, _, attribute = name.rpartition(".")
        if attribute == "pool_type" and kind not in ("avg", "fast", "fastavg", "") and module.startswith(scope):
            return module
        if attribute != "__class__" or not isinstance(kind, str) or not module.startswith(scope):
            continue
        if _OTHER_POOLINGS.search(kind) and not backbone.match(f"{module}."):
            return module
        is_before = _natural_key(module) < _natural_key(linear.name)
        if is_sequential and is_before and module.rpartition(".")[0] == container and _ACTIVATIONS.search(kind):
            return module
    return ""


def _place_norms(
    norms: list[_Module], linear: _Module, channels: int, classes: int
) -> tuple[_Module | None, _Module | None]:
    """Return the batch norms before and after the linear layer, by their sizes; by their names if these are equal."""
    order = [_natural_key(each.name) for each in (*norms, linear)]
    first = [key < order[-1] for key in order[:-1]]
    sizes = [each.tensors["running_mean"].numel() for each in norms]
    before = [
        n
        for n, size, is_first in zip(norms, sizes, first, strict=True)
        if size == channels and (is_first or classes != channels)
    ]
    after = [n for n, size in zip(norms, sizes, strict=True) if size == classes and n not in before]
    return before[0] if len(before) == 1 else None, after[0] if len(after) == 1 else None


def _fold(
    weight: torch.Tensor, bias: torch.Tensor, norm: _Module, is_before: bool, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold batch norm into a linear layer, in float64, rounded once."""
    mean, variance = (norm.tensors[name].double() for name in ("running_mean", "running_var"))
    gain = 1 / (variance + eps).sqrt()
    gain = gain * norm.tensors["weight"].double() if "weight" in norm.tensors else gain
    shift = -mean * gain
    shift = shift + norm.tensors["bias"].double() if "bias" in norm.tensors else shift
    old_weight, old_bias = weight.double(), bias.double()
    if is_before:
        return (old_weight * gain).to(weight.dtype), (old_bias + old_weight @ shift).to(bias.dtype)
    return (old_weight * gain[:, None]).to(weight.dtype), (old_bias * gain + shift).to(bias.dtype)


def _eps(norm: _Module, layout: key_maps.Layout, values: Mapping[str, Any]) -> float:
    separator = layout.tensors.separator
    stated = values.get(f"{norm.name}{separator}{'eps' if separator == '.' else 'epsilon'}")
    if isinstance(stated, float):
        return stated
    return TORCH_EPS if separator == "." else KERAS_EPS


def _group(tensors: Tensors, layout: key_maps.Layout) -> Iterator[_Module]:
    """Yield the modules that own the tensors, with PyTorch's names and axes."""
    names, found = layout.tensors, dict[str, _Module]()
    norm = dict(zip(names.norm, key_maps.BATCH_NORM_TENSORS, strict=True))
    translate = {**norm, names.conv: "weight", names.bias: "bias"}
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(names.separator)
        module = found.setdefault(owner, _Module(owner))
        part = translate.get(last, last)
        module.names[part] = name
        module.tensors[part] = tensor.permute(layout.axes.linear) if tensor.ndim == 2 else tensor
    yield from found.values()


def _scopes(network: str) -> Iterator[str]:
    """Yield the network's prefix, then those of the modules around it, the whole file last."""
    scope = network
    while scope:
        yield scope
        scope = scope[:-1].rpartition(".")[0]
        scope = f"{scope}." if scope else ""
    yield ""


def _container(module: _Module) -> str:
    return module.name.rpartition(".")[0]


def _natural_key(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _list(modules: Iterable[_Module]) -> str:
    names = [each.name or "the file" for each in modules]
    names = [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else names
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
