"""`effnet.export`: writing a network as a file for another runtime, verified before it replaces anything."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from effnet.arch import serde, tensor_shapes
from effnet.data.image_io import ImageSource
from effnet.data.storage.atomic_write import atomic_write_with_companions
from effnet.exporting import torch_export, verify
from effnet.exporting.verify import TOLERANCES
from effnet.net import EfficientNet, surgery
from effnet.runtime import litert, onnx_writer, openvino
from effnet.runtime.io_spec import IOSpec, default_input
from effnet.tasks import task_of
from effnet.weights import load

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite", "torch": ".pt2"}
WRITERS: dict[str, Callable[..., None]] = {
    "onnx": onnx_writer.write_onnx,
    "openvino": openvino.write_openvino,
    "litert": litert.write_litert,
    "torch": torch_export.write_torch_export,
}


@dataclass(frozen=True)
class ExportedFile:
    """A written file, and how closely it agrees with its network."""

    path: Path
    format: str
    io_spec: IOSpec
    bytes: int  # of all its files
    difference: float  # largest, relative to the largest output; see `effnet.exporting.verify.compare_outputs`
    images: int  # compared
    same_predictions: int | None  # of these; see `effnet.exporting.verify.Agreement`
    task: str = "classification"  # as in `Labels`; "" without a classifier
    rounding: verify.Agreement | None = None  # with the network on images that are not rounded; None: none have to be


def export(
    model: EfficientNet | str | Path,
    path: str | Path,
    to: str | None = None,
    input: str | None = None,
    output: str | None = None,
    size: int | tuple[int, int] | str | None = "own",
    embedding: bool = False,
    precision: str = "float32",
    images: str | Path | Iterable[ImageSource] | None = None,
    tolerance: float | None = None,
) -> ExportedFile:
    """Export ``model`` to ``path``, with its labels and preprocessing.

    The file is opened in its own runtime and compared with the network; if they disagree nothing is written. Any batch
    size works (a ``.tflite`` is built for one image, and its interpreter resizes it).

    Args:
        model: a network, or anything `effnet.load` accepts.
        to: "onnx", "openvino", "litert" or "torch"; by default from the suffix: ``.onnx``, ``.xml`` (with a ``.bin``
            beside it), ``.tflite``, ``.pt2`` (torch.export).
        input: "pixels", uint8 (N, H, W, C); "floats", the same as float32; "normalized", float32 (N, C, H, W). By
            default "pixels", or "floats" if images are resized as by TensorFlow, which gives fractions and overshoots:
            for "pixels" these are rounded and clipped, and what that changes is measured.
        output: "probabilities" or "logits"; "values" for regression.
        size: the network's "own", another side or (height, width), or "any" (or None).
        embedding: add the pooled features as a second output.
        precision: "float32", or "float16" to store weights in 16 bits (OpenVINO and LiteRT).
        images: folder, pattern or list of images to compare on; by default two photos that come with scikit-learn and
            four synthetic images. If the size is "any", a second size is compared too.
        tolerance: largest accepted difference relative to the largest logit: by default 1e-4, with float16 1e-2.

    Raises:
        ValueError: the file disagrees; unknown suffix or option; a size or network that the format cannot hold.
        ImportError: the format's packages are not installed.
        OSError: the disk is full.

    Example:
        >>> effnet.export("model.safetensors", "model.onnx", size="any")
    """
    path = Path(path)
    file_format = _resolve_format(path, to)
    if precision == "int8":
        raise ValueError("int8 requires images for calibration: use effnet.quantize(model, path, images)")
    serde.check_choice("precision", precision, tuple(TOLERANCES))
    if precision == "float16" and file_format not in ("openvino", "litert"):
        raise ValueError(f"float16 weights are supported by openvino and litert, not by {file_format}")
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    serde.check_float("tolerance", tolerance, 0)
    model = deepcopy(model).cpu() if isinstance(model, EfficientNet) else load(model)
    model = model.float().eval().requires_grad_(False)
    output = task_of(model.labels.task).output if output is None else output
    input = default_input(model.preprocess) if input is None else input
    io_spec = IOSpec(input, output, embedding or not model.classes, _resolve_size(size, model))
    io_spec.check_labels(model.labels)
    if io_spec.size:  # the file's metadata tell users to prepare images of this size
        model.preprocess = replace(model.preprocess, size=io_spec.size)
    _check_exportable(model, file_format)
    images_by_size = verify.comparison_images(model, io_spec, images)
    with atomic_write_with_companions(path) as written:
        WRITERS[file_format](written, model, io_spec, *([True] if precision == "float16" else []))
        agreement = verify.compare_outputs(verify.OPEN_RUNNER[file_format](written), model, io_spec, images_by_size)
        if problem := agreement.find_problem(tolerance):
            raise ValueError(f"{path} is not written: in {file_format} the {problem} (tolerance {tolerance:g})")
        file_bytes = sum(file.stat().st_size for file in written.parent.iterdir())
    task = model.labels.task if model.classes else ""
    rounding = verify.measure_rounding(model, io_spec, images_by_size)
    measured = agreement.difference, agreement.images, agreement.same_predictions
    return ExportedFile(path, file_format, io_spec, file_bytes, *measured, task, rounding)


def _resolve_format(path: Path, to: str | None) -> str:
    by_suffix = {suffix: file_format for file_format, suffix in FORMATS.items()}.get(path.suffix.lower())
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file to write, such as {path / 'model.onnx'}")
    if to is not None:
        serde.check_choice("to", to, tuple(FORMATS))
    if (to or by_suffix) is None or (to and by_suffix not in (to, None)) or (to == "openvino" and not by_suffix):
        known = ", ".join(f"{suffix} ({file_format})" for file_format, suffix in FORMATS.items())
        suffix = f"suffix {path.suffix!r}" if path.suffix else "a name without suffix"
        raise ValueError(f"{path}: {suffix} does not fit {to or 'any format'}: use one of {known}")
    return to or str(by_suffix)


def _resolve_size(size: int | tuple[int, int] | str | None, model: EfficientNet) -> tuple[int, int] | None:
    if size == "own":
        return model.preprocess.size
    if size is None or size == "any":
        return None
    if isinstance(size, str):
        raise ValueError(f'size must be "own", "any", a number or (height, width), got {size!r}')
    return serde.check_size(size)


def _check_exportable(model: EfficientNet, file_format: str) -> None:
    if len(model.preprocess.mean) != model.channels:
        raise ValueError(
            f"the network has {model.channels} input channels, but its preprocessing has mean and std for "
            f"{len(model.preprocess.mean)}: set model.preprocess first"
        )
    if file_format == "torch":
        return  # traces any network
    expected = {
        name.replace(".norm.bias", ".conv.bias"): shape
        for name, shape in tensor_shapes(model.arch, model.classes, model.channels).items()
        if not name.endswith((".norm.weight", ".running_mean", ".running_var"))
    }
    found = {name: tuple(tensor.shape) for name, tensor in surgery.fold_batch_norm(model).state_dict().items()}
    other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if other:
        raise ValueError(
            f"{file_format} cannot hold this network: {', '.join(other[:3])} {'…' if other[3:] else ''} differ from "
            f"{model.arch.name}; use a .pt2, which holds any network"
        )
