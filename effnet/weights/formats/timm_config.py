"""timm's ``config.json`` beside its weights, read and written; and what timm's names mean for padding and ε.

Sources: timm 1.0.31 ``models/_hub.py`` (``save_config_for_hf``, ``_parse_model_cfg``), ``models/_pretrained.py``,
``data/config.py`` (``resolve_data_config``), ``models/efficientnet.py`` (padding and ε are arguments of its networks).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from effnet.arch import ARCHS, Arch, variants
from effnet.metadata import INTERPOLATIONS, Labels, Numerics, Preprocess
from effnet.net import EfficientNet
from effnet.weights.defaults import TENSORFLOW, TIMM_NATIVE, default_preprocess

CONFIG_FILE = "config.json"
WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")  # that timm looks for in a repository or folder
OWN_KEY = "effnet"  # of the config: what timm's own fields cannot state
# Native names without the "tf_", but with TensorFlow's numerics: pruned from Google's weights
_PORTED = ("efficientnet_b1_pruned", "efficientnet_b2_pruned", "efficientnet_b3_pruned")
# Networks that timm has as ``tf_…`` only
_ONLY_PORTED = ("v2_b0", "v2_b1", "v2_b2", "v2_b3")
# Networks that timm calls by its two families' names
_NAMED = re.compile(r"b\d|l2|lite\d|edge_[sml]|v2_(b\d|s|m|l|xl)")
_CROP_MODES = {"center": "crop", "squash": "squash"}


def timm_name(arch: Arch, padding: str = "same") -> str | None:
    """Return what timm calls the network with this padding: ``tf_…`` for "same"; None if it has no such network."""
    if ARCHS.get(arch.name) != arch:
        return None
    if not _NAMED.fullmatch(arch.name):  # a relative, of which there is one network
        related = any(other.name == arch.name for other in variants.RELATED_ARCHS)
        name = re.sub(r"^(?=b\d_)", "efficientnet_", re.sub(r"^v2_", "efficientnetv2_", arch.name))
        return name if related else None
    family, rest = ("efficientnetv2", arch.name[3:]) if arch.name.startswith("v2_") else ("efficientnet", arch.name)
    ported = "tf_" if padding == "same" or arch.name in _ONLY_PORTED else ""
    return f"{ported}{family}_{rest.replace('edge_', 'e')}"


def numerics_of_name(name: str, arguments: Mapping[str, Any] | None = None) -> Numerics:
    """Return padding and ε of timm's network ``name``, created with ``arguments`` (``pad_type``, ``bn_eps``).

    A name that begins with "tf_" means Google's, and any other one PyTorch's.
    """
    model, arguments = name.rpartition("/")[2].partition(".")[0].lower(), arguments or {}
    usual = TENSORFLOW if model.startswith("tf_") or model in _PORTED else TIMM_NATIVE
    padding, eps = arguments.get("pad_type"), arguments.get("bn_eps")
    if padding is not None:
        padding = "same" if str(padding).lower() == "same" else "symmetric"
    return Numerics(padding or usual.padding, usual.bn_eps if eps is None else eps)


# Reading -------------------------------------------------------------------------------------------------------------


def is_timm_config(config: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` is timm's: of its present form, or of the flat one before 2023."""
    return isinstance(config.get("architecture"), str)


def read_timm_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of `Checkpoint` that timm's configuration states. ``where`` says so: "config.json beside it".

    Sizes and crops are those of the test if it states them apart, as accuracies are published for these. Raises
    ``ValueError``, ``TypeError`` or ``LookupError`` for values that make no sense.
    """
    name, pretrained = config["architecture"], config.get("pretrained_cfg", config)
    own, arguments = config.get(OWN_KEY, {}), config.get("model_args", {})
    numerics = numerics_of_name(name, {**arguments, **_keep(own, "fused_padding", "bn_eps")})
    if "fused_padding" in own:
        numerics = Numerics(numerics.padding, numerics.bn_eps, own["fused_padding"])
    found = {
        "arch_name": name,
        "numerics": numerics,
        "preprocess": {**read_data_config(pretrained), **_keep(own, "resampling")},
        "stated_in": {"arch_name": where, "numerics": f"{where} ({name})", "preprocess": where},
    }
    if labels := _read_labels(config, pretrained, own.get("task", "classification")):
        found["labels"] = labels
    return found


def read_data_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `effnet.Preprocess` in a ``pretrained_cfg`` or in the arguments of timm's ``train.py``."""
    found: dict[str, Any] = {}
    size = config.get("test_input_size") or config.get("input_size")
    side = config.get("img_size")
    if size:
        found["size"] = (int(size[-2]), int(size[-1]))
    elif side:
        found["size"] = (int(side),) * 2 if isinstance(side, (int, float)) else (int(side[-2]), int(side[-1]))
    if fraction := config.get("test_crop_pct") or config.get("crop_pct"):
        found["crop_fraction"] = min(float(fraction), 1.0)
    if config.get("crop_mode") in _CROP_MODES:
        found["resize"] = _CROP_MODES[config["crop_mode"]]
    if config.get("interpolation") in INTERPOLATIONS:  # "random" is for training
        found["interpolation"] = config["interpolation"]
    for name in ("mean", "std"):
        if values := config.get(name):
            numbers = tuple(float(value) for value in values)
            found[name] = numbers * 3 if len(numbers) == 1 else numbers
    if len(found.get("mean", ())) != len(found.get("std", ())):  # one of them alone says nothing for sure
        found.pop("mean", None), found.pop("std", None)
    return found


def _keep(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _read_labels(config: Mapping[str, Any], pretrained: Mapping[str, Any], task: str) -> Labels | None:
    """Return the names of the classes: their descriptions if each has one, which may be more than a synset's id."""
    names = config.get("label_names") or pretrained.get("label_names") or pretrained.get("labels")
    described = config.get("label_descriptions") or pretrained.get("label_descriptions") or {}
    if not names:
        return Labels(task=task) if task != "classification" else None
    if isinstance(names, Mapping):
        by_index = {int(index): str(name) for index, name in names.items()}
        names = [by_index.get(index, f"class {index}") for index in range(max(by_index) + 1)]
    if all(name in described for name in names):
        names = [described[name] for name in names]
    return Labels(distinct_names([str(name) for name in names]), task)


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names; those that stand there twice (ImageNet has two cranes) get their index appended."""
    counts = Counter(names)
    return tuple(f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(names))


# Writing -------------------------------------------------------------------------------------------------------------


def config_files(path: Path, model: EfficientNet) -> dict[str, str]:
    """Return name → text of the files to write beside ``path``: none unless it is named as the hub's weights."""
    text = build_timm_config(model) if path.name in WEIGHTS_NAMES else None
    return {} if text is None else {CONFIG_FILE: text}


def describe_lost(model: EfficientNet) -> str:
    """Return what a file without ``config.json`` does not say, and would be assumed otherwise; "" if nothing."""
    assumed, actual = default_preprocess(model.arch), model.preprocess
    names = [field.name for field in fields(Preprocess) if getattr(assumed, field.name) != getattr(actual, field.name)]
    parts = (
        [f"images are prepared otherwise than officially ({', '.join(names)}: {actual.describe()})"] if names else []
    )
    if model.labels.names:
        parts.append(f"its {len(model.labels.names)} classes have names")
    return " and that ".join(parts)


def build_timm_config(model: EfficientNet) -> str | None:
    """Return the text of the ``config.json`` with which timm creates this network; None if it has no such network.

    What timm's fields cannot state (the library that resizes, a fused convolution's own padding) has a key of ours,
    which timm ignores.
    """
    numerics, preprocess = model.numerics, model.preprocess
    name = timm_name(model.arch, numerics.padding)
    if name is None:
        return None
    usual = numerics_of_name(name)
    arguments: dict[str, Any] = {}
    if numerics.padding != usual.padding:
        arguments["pad_type"] = "same" if numerics.padding == "same" else ""
    if numerics.bn_eps != usual.bn_eps:
        arguments["bn_eps"] = numerics.bn_eps
    if model.channels != 3:
        arguments["in_chans"] = model.channels
    own: dict[str, Any] = {}
    if preprocess.resampling != "pil":
        own["resampling"] = preprocess.resampling
    if numerics.fused_padding not in ("", numerics.padding):
        own["fused_padding"] = numerics.fused_padding
    if model.labels.task != "classification":
        own["task"] = model.labels.task
    config = {
        "architecture": name,
        "num_classes": model.classes,
        "num_features": model.head.conv.out_channels,
        "global_pool": "avg",
        **({"label_names": list(model.labels.names)} if model.labels.names else {}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "input_size": [model.channels, *preprocess.size],
            "fixed_input_size": False,
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_fraction,
            "crop_mode": "squash" if preprocess.resize == "squash" else "center",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": model.classes,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
        **({OWN_KEY: own} if own else {}),
    }
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
