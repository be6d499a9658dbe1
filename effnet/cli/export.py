"""``effnet export``: a network as a file for another runtime, checked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.options import JsonOption, ModelArgument, OfflineOption, refuse_existing
from effnet.cli.options import parse_image_size as parsed


def export(
    model: ModelArgument,
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write: .onnx, .xml (OpenVINO), .tflite or .pt2 (torch).")
    ],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="onnx, openvino, litert, torch: if OUT does not say.")
    ] = None,
    given: Annotated[
        str, typer.Option("--input", metavar="KIND", help="pixels (uint8 N,H,W,3), floats (the same), normalized.")
    ] = "pixels",
    output: Annotated[
        str | None, typer.Option(metavar="KIND", help="probabilities or logits; of a model of values, values.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="224, 197x251 (height x width), or any; else the network's own.")
    ] = None,
    embedding: Annotated[bool, typer.Option("--embedding", help="Give the pooled features as well.")] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="float32; float16 stores weights in 16 bits (.xml, .tflite); int8 needs --pictures."
        ),
    ] = "float32",
    pictures: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Compare by pictures in it, in place of our own; int8: calibrate by them."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="int8: how many pictures to calibrate by.")] = 128,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, metavar="POINTS", help="int8: leave so many layers in float that top-1 loses no more."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="Largest difference allowed, over the largest logit.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it is already there.")] = False,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Export a network as a file for another runtime.

    Normalisation and softmax are inside, labels and preprocessing in its metadata. What was written is opened in that
    runtime and compared with the network; where the answers differ, it is an error and no file is left.
    """
    refuse_existing(target, force)
    if target.suffix.lower() == ".xml":
        refuse_existing(target.with_suffix(".bin"), force)
    sides = size if size == "any" else parsed(size) or "own"
    if precision == "int8":
        if pictures is None:
            raise typer.BadParameter("int8 needs a folder of pictures like those it will see", param_hint="--pictures")
        if to or size or embedding or tolerance is not None:
            raise typer.BadParameter(
                "int8 goes without --to, --size, --embedding, --tolerance", param_hint="--precision"
            )
        _export_int8(model, target, given, output, pictures, count, max_drop, as_json)
        return
    if max_drop is not None:
        raise typer.BadParameter("goes with --precision int8", param_hint="--max-drop")
    from effnet.cli.printing import print_json, print_results
    from effnet.exporting.export import export as written
    from effnet.tasks import task_of

    done = written(model, target, to, given, output, sides, embedding, precision, images=pictures, tolerance=tolerance)
    if as_json:
        print_json(
            {
                "written": str(done.path),
                "format": done.format,
                "interface": done.io_spec.to_dict(),
                "bytes": done.bytes,
                "difference": done.difference,
                "pictures": done.images,
                "same_predictions": done.same_predictions,
            }
        )
        return
    what = "number" if not done.task else "logit" if task_of(done.task).has_probabilities else "value"
    agreed = (
        f", the {task_of(done.task).agreement} on {done.same_predictions}" if done.same_predictions is not None else ""
    )
    print_results(
        f"{done.path}: {done.format}, {done.bytes / 1e6:.1f} MB, {done.io_spec.describe(has_classifier=bool(done.task))}",
        f"compared with the network on {done.images} pictures: "
        f"largest difference {done.difference:.1e} of the largest {what}{agreed}",
    )


def _export_int8(
    model: str,
    target: Path,
    given: str,
    output: str | None,
    pictures: str,
    count: int,
    max_drop: float | None,
    as_json: bool,
) -> None:
    """Calibrates, writes, judges in the file's own runtime, and tells."""
    from effnet.cli.printing import print_json, print_results, progress_bar
    from effnet.exporting.quantize import quantize
    from effnet.exporting.sensitivity import format_sensitivities
    from effnet.runtime.io_spec import IOSpec
    from effnet.tasks import task_of
    from effnet.weights import load

    network = load(model)
    wanted = task_of(network.labels.task).output if output is None else output
    interface = IOSpec(given, wanted, size=network.preprocess.size)
    with progress_bar("measuring layers") as step:
        done = quantize(network, target, pictures, interface, max_drop, count, step_done=step)
    if as_json:
        told = {**asdict(done), "path": str(done.path), "drop": done.drop}
        print_json({**told, "written": told.pop("path")})
        return
    print_results(
        f"{done.path}: {done.format}, int8, {done.bytes / 1e6:.1f} MB, {interface.describe()}",
        done.describe(),
        *([format_sensitivities(done.sensitivities, done.task)] if done.sensitivities else []),
    )
