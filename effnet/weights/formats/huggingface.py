"""The JSON files beside weights of Hugging Face transformers, read and written; timm's ``config.json``, read.

Sources: huggingface/transformers ``models/efficientnet``: ``configuration_efficientnet.py``,
``image_processing_efficientnet.py``.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from effnet.arch import Arch, layers, serde
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet
from effnet.net.layers import BATCH_NORM_MOMENTUM
from effnet.weights.formats import METADATA_KEY, Checkpoint, timm_config

HUB_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")  # names of weights that transformers looks for
CONFIG_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"
PIL_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box")  # PIL's numbers
PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
DEFAULT_LABEL = "LABEL_{}"  # a class without a name


def add_config(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Add to ``checkpoint`` what the files of transformers or timm beside ``path`` state, if there are any."""
    if path.name not in HUB_WEIGHTS_NAMES or METADATA_KEY in checkpoint.header:
        return checkpoint
    config = _read_json(path.with_name(CONFIG_FILE))
    where = f"{CONFIG_FILE} beside it"
    try:
        if timm_config.is_timm_config(config):
            return replace(checkpoint, **timm_config.read_timm_config(config, where))
        if config.get("model_type") != "efficientnet":
            return checkpoint
        return replace(
            checkpoint,
            layout="huggingface",
            numerics=Numerics(bn_eps=config.get("batch_norm_eps", Numerics.bn_eps)),
            labels=_read_labels(config.get("id2label") or {}, config.get("problem_type")),
            preprocess=_read_preprocess(_read_json(path.with_name(PROCESSOR_FILE))),
        )
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path}: invalid values in {CONFIG_FILE} or {PROCESSOR_FILE} beside it ({error})") from None


def read_image_config(path: Path) -> tuple[dict[str, Any], Labels]:
    """Return the fields of `Preprocess` and the labels that a ``config.json`` of any network states beside ``path``.

    Beside it or, as optimum writes, above its folder ``onnx``; {} and no labels if there is none.
    """
    above = path.parent.parent if path.parent.name == "onnx" else path.parent
    folder = next((each for each in (path.parent, above) if (each / CONFIG_FILE).is_file()), None)
    if folder is None:
        return {}, Labels()
    config = _read_json(folder / CONFIG_FILE)
    try:
        if timm_config.is_timm_config(config):
            stated = timm_config.read_timm_config(config, f"{CONFIG_FILE} beside it")
            return dict(stated.get("preprocess", {})), stated.get("labels", Labels())
        labels = _read_labels(config.get("id2label") or {}, config.get("problem_type"))
        return dict(_read_preprocess(_read_json(folder / PROCESSOR_FILE))), labels
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path}: invalid values in {CONFIG_FILE} or {PROCESSOR_FILE} beside it ({error})") from None


def config_files(path: Path, model: EfficientNet) -> dict[str, str]:
    """Return name → text of the files to write beside ``path``, so that ``from_pretrained`` loads the folder.

    The dict is empty if ``path`` does not have the name of transformers' weights. Raises ``ValueError`` for an image
    size at which transformers would pad differently.
    """
    if path.name not in HUB_WEIGHTS_NAMES:
        return {}
    files = {CONFIG_FILE: _build_config(model), PROCESSOR_FILE: _build_processor_config(model.preprocess)}
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in files.items()}


def depthwise_padding(arch: Arch, side: int) -> list[int]:
    """Return the blocks of stride 2 whose input has odd sides if images have ``side`` pixels."""
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
            f"transformers cannot pad images of {high}×{wide} pixels as this network does: choose an even, square "
            "model.preprocess.size"
        )
    names = [model.labels.name(i) if model.labels.names else DEFAULT_LABEL.format(i) for i in range(model.classes)]
    # It chooses the loss by it, single-label classification by default
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
        "batch_norm_momentum": BATCH_NORM_MOMENTUM,  # the default, 0.99, is TensorFlow's convention
        "dropout_rate": arch.dropout,
        "drop_connect_rate": arch.drop_path,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _build_processor_config(preprocess: Preprocess) -> dict[str, Any]:
    high, wide = preprocess.resize_size
    squash = {"height": high, "width": wide}
    return {
        # In transformers 4, EfficientNet's own can only squash; this one can also crop
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
    """Return mean and std for values in [0, 1], from those that EfficientNet's processor applies after its own scaling.

    With ``include_top``, its default, it divides by std a second time: its files state rounded square roots.
    """
    scale = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    shift = 1.0 if processor.get("rescale_offset") else 0.0
    normalize = processor.get("do_normalize", True)
    twice = processor.get("include_top", processor.get("image_processor_type", "").startswith("EfficientNet"))
    mean = tuple(round(((value if normalize else 0.0) + shift) / scale, 6) for value in processor["image_mean"])
    std = tuple(round(value ** (normalize + twice) / scale, 6) for value in processor["image_std"])
    return mean, std


def _read_labels(id2label: Mapping[str, str], problem: str | None) -> Labels:
    """Return the class names in order; repeated ones (ImageNet has two cranes) get their index appended."""
    task = next((task for task, name in PROBLEM_TYPES.items() if name == problem), "classification")
    names = [id2label[str(index)] for index in range(len(id2label))]
    if all(name == DEFAULT_LABEL.format(index) for index, name in enumerate(names)):
        return Labels(task=task)
    return Labels(timm_config.distinct_names(names), task)


def _read_json(path: Path) -> dict[str, Any]:
    """Return the file's content, empty if it does not exist. Raises ``ValueError`` if it is not a JSON object."""
    return serde.read_json_object(path, dict[str, Any]) if path.is_file() else {}
