"""A network as a file for another runtime: written, compared with the network, and only then put in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from effnet.arch import tensors
from effnet.arch.record import choice, number
from effnet.data.pixels import Fitted, Source
from effnet.engines.interface import ANSWERS, Interface
from effnet.exporting import litert, onnx, openvino, torch_export
from effnet.exporting.check import Agreement, Run, compare
from effnet.exporting.pictures import given, own, prepared
from effnet.net import EfficientNet
from effnet.net.surgery import fold
from effnet.weights import load
from effnet.weights.atomic import replacing, take_place

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite", "torch": ".pt2"}
# float32 sums in another order differ by 1e-6 to 1e-5; what is stored in 16 bits by a few thousandths.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2}


@dataclass(frozen=True)
class Exported:
    """What was written, and how it answers beside the network that it was made from."""

    path: Path
    format: str
    interface: Interface
    bytes: int  # of all its files
    difference: float  # the largest of an output over the output's largest: see `effnet.exporting.check.compare`
    pictures: int  # compared
    same_top1: int | None  # of these, see `effnet.exporting.check.Agreement`; None without a classifier, and of values
    kind: str = "one"  # of the labels, as in `Labels`; "" without a classifier


def export(
    model: EfficientNet | str | Path,
    path: str | Path,
    to: str | None = None,
    input: str = "pixels",
    output: str | None = None,
    size: int | tuple[int, int] | str | None = "own",
    embedding: bool = False,
    precision: str = "float32",
    pictures: str | Path | Iterable[Source] | None = None,
    tolerance: float | None = None,
) -> Exported:
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
    kind = _format(path, to)
    if precision == "int8":
        raise ValueError("int8 needs pictures to take ranges from: effnet.quantise(model, path, folder)")
    choice("precision", precision, tuple(TOLERANCES))
    if precision == "float16" and kind not in ("openvino", "litert"):
        raise ValueError(f"{kind} files keep float32 here: weights of 16 bits are for openvino and litert")
    allowed = TOLERANCES[precision] if tolerance is None else tolerance
    number("tolerance", allowed, 0)
    model = deepcopy(model).cpu() if isinstance(model, EfficientNet) else load(model)
    model = model.float().eval().requires_grad_(False)
    output = ANSWERS[model.labels.kind] if output is None else output
    interface = Interface(input, output, embedding or not model.classes, _size(size, model))
    interface.suits(model.labels)
    if interface.size:  # so that whoever reads the file's contract makes pictures of that size
        model.preprocess = replace(model.preprocess, size=interface.size)
    _fit_to_be_written(model, kind)
    compared = _compared(model, interface, pictures)
    with replacing(path) as beside, TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        run = _written(kind, made, model, interface, precision == "float16")
        agreement = compare(run, model, interface, compared)
        if not agreement.difference <= allowed:  # NaN is no agreement
            raise ValueError(_refusal(path, kind, agreement, allowed))
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
        take_place(made, path, beside)
    return Exported(
        path,
        kind,
        interface,
        written,
        agreement.difference,
        agreement.pictures,
        agreement.same_top1,
        model.labels.kind if model.classes else "",
    )


def _format(path: Path, to: str | None) -> str:
    by_suffix = {suffix: kind for kind, suffix in FORMATS.items()}.get(path.suffix.lower())
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file to write, as {path / 'model.onnx'}")
    if to is not None:
        choice("to", to, tuple(FORMATS))
    if (to or by_suffix) is None or (to and by_suffix not in (to, None)) or (to == "openvino" and not by_suffix):
        known = ", ".join(f"{suffix} ({kind})" for kind, suffix in FORMATS.items())
        said = f"{path.suffix or 'a name without a suffix'} is not that of {to}" if to else "its suffix says no format"
        raise ValueError(f"{path}: {said}; there are {known}")
    return to or str(by_suffix)


def _size(size: int | tuple[int, int] | str | None, model: EfficientNet) -> tuple[int, int] | None:
    if size == "own":
        return model.preprocess.size
    if isinstance(size, str) and size != "any":
        raise ValueError(f'size must be "own", "any", a number or (height, width), got {size!r}')
    if size is None or isinstance(size, str):
        return None
    return (size, size) if isinstance(size, int) else size


def _fit_to_be_written(model: EfficientNet, kind: str) -> None:
    """Raises ``ValueError`` for a network that is not what its arch says, or cannot be told pixels."""
    if len(model.preprocess.mean) != model.channels:
        raise ValueError(
            f"this network sees {model.channels} channels, and its preprocessing has mean and std of "
            f"{len(model.preprocess.mean)}: set model.preprocess first"
        )
    if kind == "torch":
        return  # follows whatever it does
    expected = {
        name.replace(".norm.bias", ".conv.bias"): shape
        for name, shape in tensors(model.arch, model.classes, model.channels).items()
        if not name.endswith((".norm.weight", ".running_mean", ".running_var"))
    }
    found = {name: tuple(tensor.shape) for name, tensor in fold(model).state_dict().items()}
    other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if other:
        raise ValueError(
            f"{kind} cannot hold this network: {', '.join(other[:3])} {'…' if other[3:] else ''} are not as "
            f"{model.arch.name} says; torch's .pt2 holds whatever a network does"
        )


def _compared(
    model: EfficientNet, interface: Interface, pictures: str | Path | Iterable[Source] | None
) -> list[Fitted]:
    """Pictures to compare by, (N, H, W, C) of each size."""
    seen = replace(model.preprocess, size=interface.size or model.preprocess.size)
    others = [] if interface.size else [replace(seen, size=_another(seen.size))]
    if pictures is None:
        return [own(each, model.channels) for each in (seen, *others)]
    if model.channels != 3:
        raise ValueError(f"this network sees {model.channels} channels, and pictures are read as RGB: leave them out")
    chosen = given(pictures)
    return [prepared(chosen, seen), *(prepared(chosen[:3], each) for each in others)]


def _another(size: tuple[int, int]) -> tuple[int, int]:
    """A little larger, odd by even: padding falls otherwise."""
    height, width = size
    return (height | 1) + 2, width + width % 2 + 10


def _written(kind: str, path: Path, model: EfficientNet, interface: Interface, half: bool) -> Run:
    """Writes the file, and opens it in its runtime."""
    opened: Callable[[Path], Run]
    match kind:
        case "onnx":
            onnx.write(path, model, interface)
            opened = onnx.opened
        case "openvino":
            openvino.write(path, model, interface, half)
            opened = openvino.opened
        case "litert":
            litert.write(path, model, interface, half)
            opened = litert.opened
        case _:
            torch_export.write(path, model, interface)
            opened = torch_export.opened
    return opened(path)


def _refusal(path: Path, kind: str, agreement: Agreement, allowed: float) -> str:
    told = f"in {kind} the network would answer {agreement.difference:.1e} of the largest logit away"
    if agreement.difference != agreement.difference:
        told = f"in {kind} the network would answer with other outputs, or with numbers that are not finite"
    return f"{path} is not written: {told} (allowed: {allowed:g})"
