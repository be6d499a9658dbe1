"""A network as a file for another runtime: written, compared with the network, and only then put in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from effnet.arch import tensor_shapes
from effnet.arch.serde import check_choice, check_float
from effnet.data.image_io import ImageSource, InputImage
from effnet.data.storage.atomic_write import atomic_write, move_with_companions
from effnet.exporting import torch_export
from effnet.exporting.verify import Agreement, FileRunner, compare_outputs, load_images, sample_images, select_images
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime import litert, onnx, openvino
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import task_of
from effnet.weights import load

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite", "torch": ".pt2"}
# float32 sums in another order differ by 1e-6 to 1e-5; what is stored in 16 bits by a few thousandths.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2}


@dataclass(frozen=True)
class ExportedFile:
    """What was written, and how it answers beside the network that it was made from."""

    path: Path
    format: str
    io_spec: IOSpec
    bytes: int  # of all its files
    difference: float  # the largest of an output over the output's largest: see `effnet.exporting.verify.compare`
    images: int  # compared
    same_top1: int | None  # of these, see `effnet.exporting.verify.Agreement`; None without a classifier, and of values
    task: str = "classification"  # of the labels, as in `Labels`; "" without a classifier


def export(
    model: EfficientNet | str | Path,
    path: str | Path,
    to: str | None = None,
    input: str = "pixels",
    output: str | None = None,
    size: int | tuple[int, int] | str | None = "own",
    embedding: bool = False,
    precision: str = "float32",
    images: str | Path | Iterable[ImageSource] | None = None,
    tolerance: float | None = None,
) -> ExportedFile:
    """Writes ``model``, a network or whatever `load` takes, to ``path`` for another runtime.

    ``to``: "onnx", "openvino", "litert" or "torch" (torch.export); by default what the suffix means: ``.onnx``,
    ``.xml`` (with its ``.bin`` beside it), ``.tflite``, ``.pt2``. ``input``, ``output`` and ``embedding`` are those of
    `Interface`: uint8 (N, H, W, 3) pictures in, probabilities out, or values where the labels are such. ``size``: the
    network's "own", another as 240 or (height, width), or "any" or None for whatever size a picture has. The number of
    pictures is always open; a ``.tflite`` is laid out for one of the network's own size and resized by its interpreter.
    Labels and preprocessing lie in the file.

    The file is opened in its own runtime and compared with the network on ``pictures`` (a folder, a pattern, a list),
    by default on two photos that come with scikit-learn and four drawn ones; where the size is open, on a second size
    too. Beyond ``tolerance`` of the largest logit (by default 1e-4; 1e-2 with ``precision="float16"``, which stores
    weights in 16 bits) nothing is left. What was at ``path`` stays whole unless all goes well.
    Raises ``ValueError`` for that, an unknown suffix or option, a size that it cannot take, or a network that the
    format cannot hold; ``ImportError`` without the format's packages; ``OSError`` where the disk is full.
    """
    path = Path(path)
    kind = _resolve_format(path, to)
    if precision == "int8":
        raise ValueError("int8 needs pictures to take ranges from: effnet.quantise(model, path, folder)")
    check_choice("precision", precision, tuple(TOLERANCES))
    if precision == "float16" and kind not in ("openvino", "litert"):
        raise ValueError(f"{kind} files keep float32 here: weights of 16 bits are for openvino and litert")
    allowed = TOLERANCES[precision] if tolerance is None else tolerance
    check_float("tolerance", allowed, 0)
    model = deepcopy(model).cpu() if isinstance(model, EfficientNet) else load(model)
    model = model.float().eval().requires_grad_(False)
    output = task_of(model.labels.task).output if output is None else output
    interface = IOSpec(input, output, embedding or not model.classes, _resolve_size(size, model))
    interface.check_labels(model.labels)
    if interface.size:  # so that whoever reads the file's contract makes pictures of that size
        model.preprocess = replace(model.preprocess, size=interface.size)
    _check_exportable(model, kind)
    compared = _comparison_images(model, interface, images)
    with atomic_write(path) as beside, TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        run = _write_file(kind, made, model, interface, precision == "float16")
        agreement = compare_outputs(run, model, interface, compared)
        if not agreement.difference <= allowed:  # NaN is no agreement
            raise ValueError(_disagreement_message(path, kind, agreement, allowed))
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
        move_with_companions(made, path, beside)
    return ExportedFile(
        path,
        kind,
        interface,
        written,
        agreement.difference,
        agreement.images,
        agreement.same_top1,
        model.labels.task if model.classes else "",
    )


def _resolve_format(path: Path, to: str | None) -> str:
    by_suffix = {suffix: kind for kind, suffix in FORMATS.items()}.get(path.suffix.lower())
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file to write, as {path / 'model.onnx'}")
    if to is not None:
        check_choice("to", to, tuple(FORMATS))
    if (to or by_suffix) is None or (to and by_suffix not in (to, None)) or (to == "openvino" and not by_suffix):
        known = ", ".join(f"{suffix} ({kind})" for kind, suffix in FORMATS.items())
        said = f"{path.suffix or 'a name without a suffix'} is not that of {to}" if to else "its suffix says no format"
        raise ValueError(f"{path}: {said}; there are {known}")
    return to or str(by_suffix)


def _resolve_size(size: int | tuple[int, int] | str | None, model: EfficientNet) -> tuple[int, int] | None:
    if size == "own":
        return model.preprocess.size
    if isinstance(size, str) and size != "any":
        raise ValueError(f'size must be "own", "any", a number or (height, width), got {size!r}')
    if size is None or isinstance(size, str):
        return None
    return (size, size) if isinstance(size, int) else size


def _check_exportable(model: EfficientNet, file_format: str) -> None:
    """Raises ``ValueError`` for a network that is not what its arch says, or cannot be told pixels."""
    if len(model.preprocess.mean) != model.channels:
        raise ValueError(
            f"this network sees {model.channels} channels, and its preprocessing has mean and std of "
            f"{len(model.preprocess.mean)}: set model.preprocess first"
        )
    if file_format == "torch":
        return  # follows whatever it does
    expected = {
        name.replace(".norm.bias", ".conv.bias"): shape
        for name, shape in tensor_shapes(model.arch, model.classes, model.channels).items()
        if not name.endswith((".norm.weight", ".running_mean", ".running_var"))
    }
    found = {name: tuple(tensor.shape) for name, tensor in fold_batch_norm(model).state_dict().items()}
    other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if other:
        raise ValueError(
            f"{file_format} cannot hold this network: {', '.join(other[:3])} {'…' if other[3:] else ''} are not as "
            f"{model.arch.name} says; torch's .pt2 holds whatever a network does"
        )


def _comparison_images(
    model: EfficientNet, io_spec: IOSpec, images: str | Path | Iterable[ImageSource] | None
) -> list[InputImage]:
    """Pictures to compare by, (N, H, W, C) of each size."""
    seen = replace(model.preprocess, size=io_spec.size or model.preprocess.size)
    others = [] if io_spec.size else [replace(seen, size=_second_size(seen.size))]
    if images is None:
        return [sample_images(each, model.channels) for each in (seen, *others)]
    if model.channels != 3:
        raise ValueError(f"this network sees {model.channels} channels, and pictures are read as RGB: leave them out")
    chosen = select_images(images)
    return [load_images(chosen, seen), *(load_images(chosen[:3], each) for each in others)]


def _second_size(size: tuple[int, int]) -> tuple[int, int]:
    """A little larger, odd by even: padding falls otherwise."""
    height, width = size
    return (height | 1) + 2, width + width % 2 + 10


def _write_file(file_format: str, path: Path, model: EfficientNet, io_spec: IOSpec, half_precision: bool) -> FileRunner:
    """Writes the file, and opens it in its runtime."""
    opened: Callable[[Path], FileRunner]
    match file_format:
        case "onnx":
            onnx.write_onnx(path, model, io_spec)
            opened = onnx.run_onnx_file
        case "openvino":
            openvino.write_openvino(path, model, io_spec, half_precision)
            opened = openvino.run_openvino_file
        case "litert":
            litert.write_litert(path, model, io_spec, half_precision)
            opened = litert.run_litert_file
        case _:
            torch_export.write_torch_export(path, model, io_spec)
            opened = torch_export.run_torch_file
    return opened(path)


def _disagreement_message(path: Path, file_format: str, agreement: Agreement, tolerance: float) -> str:
    told = f"in {file_format} the network would answer {agreement.difference:.1e} of the largest logit away"
    if agreement.difference != agreement.difference:
        told = f"in {file_format} the network would answer with other outputs, or with numbers that are not finite"
    return f"{path} is not written: {told} (allowed: {tolerance:g})"
