"""The two JSON files that transformers keeps beside its weights: read for what they say, written so that it opens ours.

Sources: huggingface/transformers ``models/efficientnet``: ``configuration_efficientnet.py``,
``image_processing_efficientnet.py``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from effnet.arch import Arch, layers
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet
from effnet.net.layers import BATCH_NORM_MOMENTUM
from effnet.weights.formats.checkpoint import Checkpoint
from effnet.weights.formats.safetensors import METADATA_KEY

HUB_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")  # the names under which transformers looks for weights
CONFIG_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"
PIL_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box")  # PIL's numbers
PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
DEFAULT_LABEL = "LABEL_{}"  # what transformers calls a class without a name


def add_config(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """``content`` of the file ``path`` with what transformers' files in the same folder say of it, if there are any."""
    config = (
        _read_json(path.with_name(CONFIG_FILE))
        if path.name in HUB_WEIGHTS_NAMES and METADATA_KEY not in checkpoint.header
        else {}
    )
    if config.get("model_type") != "efficientnet":
        return checkpoint
    try:
        return replace(
            checkpoint,
            layout="huggingface",
            numerics=Numerics(bn_eps=config.get("batch_norm_eps", Numerics.bn_eps)),
            labels=_read_labels(config.get("id2label") or {}, config.get("problem_type")),
            preprocess=_read_preprocess(_read_json(path.with_name(PROCESSOR_FILE))),
        )
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"{path}: what {CONFIG_FILE} and {PROCESSOR_FILE} beside it say makes no sense ({error})"
        ) from None


def config_files(path: Path, model: EfficientNet) -> dict[str, str]:
    """Name → text of the files to put beside ``path``: with them the folder opens with ``from_pretrained``.

    Nothing where ``path`` is not called as transformers' weights are. Raises ``ValueError`` for a size of pictures at
    which transformers would pad otherwise than the network needs.
    """
    if path.name not in HUB_WEIGHTS_NAMES:
        return {}
    files = {CONFIG_FILE: _build_config(model), PROCESSOR_FILE: _build_processor_config(model.preprocess)}
    return {name: json.dumps(said, indent=2, ensure_ascii=False) + "\n" for name, said in files.items()}


def depthwise_padding(arch: Arch, side: int) -> list[int]:
    """The blocks of stride 2 that see a map with odd sides where pictures of ``side`` pixels come in."""
    found, blocks = [], 0
    for layer in layers(arch):
        if layer.kind == "mbconv":
            if layer.stride == 2 and side % 2:
                found.append(blocks)
            blocks += 1
        side = ceil(side / layer.stride)
    return found


def _build_config(model: EfficientNet) -> dict[str, Any]:
    arch, (high, wide) = model.arch, model.preprocess.size
    padding = depthwise_padding(arch, high)
    if high % 2 or wide % 2 or padding != depthwise_padding(arch, wide):
        raise ValueError(
            f"transformers cannot pad pictures of {high}×{wide} pixels as this network does: choose an even, square "
            "model.preprocess.size"
        )
    names = [model.labels.name(i) if model.labels.names else DEFAULT_LABEL.format(i) for i in range(model.classes)]
    # It takes its loss by it; without, it guesses single-label classification
    problem = {"problem_type": PROBLEM_TYPES[model.labels.task]} if model.labels.task != "classification" else {}
    return {
        **problem,
        "architectures": ["EfficientNetForImageClassification" if model.classes else "EfficientNetModel"],
        "model_type": "efficientnet",
        "num_channels": model.channels,
        "image_size": high if high == wide else [high, wide],
        "width_coefficient": arch.width,
        "depth_coefficient": arch.depth,
        "hidden_dim": model.head.conv.out_channels,
        "depthwise_padding": padding,
        "batch_norm_eps": model.numerics.bn_eps,
        "batch_norm_momentum": BATCH_NORM_MOMENTUM,  # its default, TensorFlow's 0.99, means the opposite in PyTorch
        "dropout_rate": arch.dropout,
        "drop_connect_rate": arch.drop_path,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _build_processor_config(preprocess: Preprocess) -> dict[str, Any]:
    high, wide = preprocess.resize_size
    squash = {"height": high, "width": wide}
    return {
        # EfficientNet's own can do no more than squash in transformers 4; this one does the same, and crops
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": squash if preprocess.resize == "squash" else {"shortest_edge": max(high, wide)},
        "resample": PIL_RESAMPLING.index(preprocess.interpolation),
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size[0], "width": preprocess.size[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    }


def _read_preprocess(processor: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Preprocess` that a processor's file states."""
    found: dict[str, Any] = {}
    size, crop = processor.get("size"), processor.get("crop_size")
    if processor.get("do_resize", True) and isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        resized = (edge, edge) if edge else (size["height"], size["width"])
        cut = crop if processor.get("do_center_crop") and isinstance(crop, Mapping) else None
        found["size"] = (cut["height"], cut["width"]) if cut else resized
        found["crop_fraction"] = min(1.0, found["size"][0] / resized[0])
        found["resize"] = "crop" if edge else "squash"
    if isinstance(processor.get("resample"), int):
        found["interpolation"] = PIL_RESAMPLING[processor["resample"]]
    if "image_mean" in processor and "image_std" in processor:
        found["mean"], found["std"] = _read_mean_std(processor)
    return found


def _read_mean_std(processor: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for values in [0, 1], from those that EfficientNet's processor applies after its own scaling.

    With ``include_top``, its default, it divides by std a second time: its files hold roots, rounded ones.
    """
    scale = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    shift = 1.0 if processor.get("rescale_offset") else 0.0
    normalised = processor.get("do_normalize", True)
    twice = processor.get("include_top", processor.get("image_processor_type", "").startswith("EfficientNet"))
    mean = tuple(round(((value if normalised else 0.0) + shift) / scale, 6) for value in processor["image_mean"])
    std = tuple(round(value ** (normalised + twice) / scale, 6) for value in processor["image_std"])
    return mean, std


def _read_labels(id2label: Mapping[str, str], problem: str | None) -> Labels:
    """The classes' names in order; one that comes twice (ImageNet has two cranes) gets its number."""
    kind = next((kind for kind, name in PROBLEM_TYPES.items() if name == problem), "classification")
    names = [id2label[str(index)] for index in range(len(id2label))]
    if all(name == DEFAULT_LABEL.format(index) for index, name in enumerate(names)):
        return Labels(task=kind)
    often = Counter(names)
    return Labels(tuple(f"{name} ({i})" if often[name] > 1 else name for i, name in enumerate(names)), kind)


def _read_json(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none. Raises ``ValueError`` where it is no JSON object."""
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(said, dict):
        raise ValueError(f"{path}: not a JSON object")
    return said
