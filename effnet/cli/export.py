"""``effnet export``: a network as a file for another runtime, verified."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from effnet.net import EfficientNet


@with_weights_options()
def export(
    model: options.ModelArgument,
    target: Annotated[
        Path, Argument(metavar="OUT", help="The file to write: .onnx, .xml (OpenVINO), .tflite or .pt2 (torch).")
    ],
    to: Annotated[
        str | None,
        Option("--to", metavar="FORMAT", help="onnx, openvino, litert or torch, if the suffix of OUT is unclear."),
    ] = None,
    input_type: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help="pixels (uint8 N,H,W,3; the default), floats (the same as float32; the default if images are resized "
            "as by TensorFlow) or normalized.",
        ),
    ] = None,
    output_type: Annotated[
        str | None, Option(metavar="TYPE", help="probabilities or logits; values of a regression model.")
    ] = None,
    image_size: Annotated[
        str | None,
        Option(*options.IMAGE_SIZE, metavar="SIZE", help="224, HEIGHTxWIDTH, or any (default: the network's)."),
    ] = None,
    part: WeightsOptions = AS_STATED,
    embedding: Annotated[bool, Option("--embedding", help="Also output the pooled features.")] = False,
    precision: Annotated[
        str,
        Option(
            metavar="DTYPE", help="float32; float16 stores weights in 16 bits (.xml, .tflite); int8 needs --images."
        ),
    ] = "float32",
    labels: options.LabelsOption = None,
    images: Annotated[
        str | None, Option(metavar="FOLDER", help="Images to verify with, and to calibrate int8 with.")
    ] = None,
    calibration_images: Annotated[int, options.number("int8: number of images to calibrate with.")] = 128,
    max_drop: Annotated[
        float | None,
        options.real("int8: keep layers in float so that top-1 drops by no more.", max=100, metavar="POINTS"),
    ] = None,
    tolerance: options.ToleranceOption = None,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Export a network as a file for another runtime.

    Normalization and softmax are part of the graph, labels and preprocessing of its metadata. The file is opened in
    its runtime and compared with the network; if the outputs differ, it is an error and no file is left.
    """
    options.refuse_existing(target, force)
    if target.suffix.lower() == ".xml":
        options.refuse_existing(target.with_suffix(".bin"), force)
    size = image_size if image_size == "any" else options.parse_image_size(image_size) or "own"
    if precision == "int8":
        if images is None:
            raise options.UsageError(
                "--precision int8 requires --images: pass a folder of images like those it will see"
            )
        conflicts = {"--to": to, "--image-size": image_size, "--embedding": embedding, "--tolerance": tolerance}
        for name, value in conflicts.items():
            if value:
                raise options.UsageError(f"{name} cannot be combined with --precision int8")
        source = part.open(model, options.read_labels(labels))
        _export_int8(source, target, input_type, output_type, images, calibration_images, max_drop, as_json)
        return
    if max_drop is not None:
        raise options.UsageError("--max-drop requires --precision int8")
    from effnet.exporting.export import export as export_file
    from effnet.tasks import task_of

    source = part.open(model, options.read_labels(labels))
    arguments = (source, target, to, input_type, output_type, size, embedding, precision)
    result = export_file(*arguments, images=images, tolerance=tolerance)
    if as_json:
        written = {"written": str(result.path), "format": result.format, "interface": result.io_spec.to_dict()}
        measured = {name: getattr(result, name) for name in ("bytes", "difference", "images", "same_predictions")}
        rounding = {"rounding": asdict(result.rounding)} if result.rounding else {}
        printing.print_json(written | measured | rounding)
        return
    unit, agreement = "feature", ""
    if result.task:
        task = task_of(result.task)
        unit = "logit" if task.has_probabilities else "value"
        agreement = f", {task.agreement} on {result.same_predictions}" if result.same_predictions is not None else ""
    interface = result.io_spec.describe(has_classifier=bool(result.task))
    lines = [
        f"{result.path}: {result.format}, {result.bytes / 1e6:.1f} MB, {interface}",
        f"verified with {result.images} images: largest difference {result.difference:.1e} of the largest {unit}"
        f"{agreement}",
    ]
    if result.rounding:
        same = result.rounding.same_predictions
        agreement = "" if same is None else f", {task_of(result.task).agreement} on {same}"
        lines.append(
            "its images are resized as by TensorFlow and rounded to whole pixels of 0 … 255: largest difference "
            f"{result.rounding.difference:.1e} of the largest {unit}{agreement}; --input-type floats avoids it"
        )
    printing.print_results(*lines)


def _export_int8(
    model: "str | EfficientNet",
    target: Path,
    input_type: str | None,
    output_type: str | None,
    images: str,
    count: int,
    max_drop: float | None,
    as_json: bool,
) -> None:
    from effnet.exporting import quantize, sensitivity
    from effnet.runtime.io_spec import IOSpec, default_input
    from effnet.tasks import task_of
    from effnet.weights import load

    network = load(model) if isinstance(model, str) else model
    output = task_of(network.labels.task).output if output_type is None else output_type
    io_spec = IOSpec(input_type or default_input(network.preprocess), output, size=network.preprocess.size)
    with printing.progress_bar("measuring layers") as step:
        result = quantize.quantize(network, target, images, io_spec, max_drop, count, step_done=step)
    if as_json:
        data = asdict(result)
        printing.print_json({"written": str(data.pop("path")), **data, "drop": result.drop})
        return
    printing.print_results(
        f"{result.path}: {result.format}, int8, {result.bytes / 1e6:.1f} MB, {io_spec.describe()}",
        result.describe(),
        *([sensitivity.format_sensitivities(result.sensitivities, result.task)] if result.sensitivities else []),
    )
