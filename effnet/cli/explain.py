"""``effnet explain``: heat maps of the parts of images that speak for a class."""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, Option

from effnet.arch import serde
from effnet.cli import options, predict, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from effnet.data import image_io, prediction_inputs
    from effnet.metadata import Preprocess
    from effnet.net import EfficientNet


ExplainMethod = StrEnum("ExplainMethod", ["cam", "gradcam", "occlusion"])
OcclusionMeasure = StrEnum("OcclusionMeasure", ["logit", "probability"])


@with_weights_options()
def explain(
    model: options.ModelArgument,
    images: Annotated[
        list[str], Argument(metavar="IMAGE", help="Files, folders, glob patterns, URLs or videos; - is standard input.")
    ],
    out: Annotated[Path, options.output("FOLDER", "For overlays, index.html and index.csv; a .png for --beside.")],
    classes: Annotated[
        list[str] | None,
        Option(metavar="NAMES", help="Classes to explain: names or indices, separated by commas or repeated."),
    ] = None,
    part: WeightsOptions = AS_STATED,
    top: Annotated[int, options.number("Without --classes: explain the N top classes.")] = 3,
    method: Annotated[
        ExplainMethod | None,
        Option(help="cam (default) is exact; gradcam works at any --layer; occlusion covers parts of the image."),
    ] = None,
    layer: Annotated[
        str | None, Option(metavar="LAYER", help="Of gradcam: stem, stage1, …, head (default); implies gradcam.")
    ] = None,
    patch: Annotated[
        int | None,
        options.number("Of occlusion (default: a seventh of the image).", max=serde.MAX_IMAGE_SIDE, metavar="PIXELS"),
    ] = None,
    stride: Annotated[
        int | None,
        options.number("Of occlusion (default: half the patch).", max=serde.MAX_IMAGE_SIDE, metavar="PIXELS"),
    ] = None,
    drop: Annotated[
        OcclusionMeasure | None, Option(help="Of occlusion: drop of the logit (default) or the probability.")
    ] = None,
    labels: options.LabelsOption = None,
    color: options.ColorOption = None,
    bits: options.BitsOption = None,
    raw: Annotated[bool, Option("--raw", help="Also write the maps as .npy.")] = False,
    beside: Annotated[
        list[str] | None, Option(metavar="MODEL", help="Draw one panel with this model beside MODEL; may be repeated.")
    ] = None,
    frame_interval: options.FrameIntervalOption = 1.0,
    batch_size: options.BatchSizeOption = 16,
    force: options.ForceOption = False,
    strict: options.StrictOption = False,
    csv_cells: options.CsvCellsOption = None,
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Show which parts of images speak for a class.

    Writes heat maps over the images, and a page to browse them. With --beside, several models in one panel, where
    --classes gives one class per image. Images that cannot be read are reported and skipped; the exit status is 1 if
    none could be read.
    """
    how = (method or (ExplainMethod.gradcam if layer else ExplainMethod.cam)).value
    for name, value in {"--patch": patch, "--stride": stride, "--drop": drop}.items():
        if value and how != "occlusion":
            raise options.UsageError(f"{name} requires --method occlusion")
    if layer and how != "gradcam":
        raise options.UsageError(f"--layer cannot be combined with --method {how}: it requires gradcam")
    if beside:
        part.refuse("cannot be combined with --beside")
        if raw or how == "occlusion":
            raise options.UsageError(f"--beside cannot be combined with {'--raw' if raw else '--method occlusion'}")
        if out.suffix.lower() != ".png":
            raise options.UsageError(f"--output {out}: with --beside the file name must end in .png")
        options.refuse_existing(out, force)
    layer, label_names = layer or "head", options.read_labels(labels)
    from effnet.data import image_io, prediction_inputs

    # Before torch is imported, so that a missing file is reported at once
    named = prediction_inputs.open_inputs(images, frame_interval)
    view = _InputView(color, bits, images)
    if beside:
        _explain_beside([model, *beside], named, out, classes, how, layer, strict, device, as_json, label_names, view)
        return
    from effnet.explanation import explainer, gallery

    title = f"Where {options.display_name(model)} looks"
    with gallery.Gallery(out, title, how, layer, raw, force) as page, printing.progress_bar("explaining") as step:
        network = _load_on_device(part.open(model), device, label_names, view)
        names, measure = _split_class_names(classes, network.labels.names), drop.value if drop else "logit"
        results: list[dict[str, Any]] = []
        predictions = []
        counter = printing.ReadCounter(step)
        for name, source in named:
            try:
                if isinstance(source, image_io.ImageError):
                    raise source
                explanation = explainer.explain(
                    network, source, names, top, how, layer, patch, stride, measure, batch_size, name
                )
            except image_io.ImageError as error:
                counter.add(name, error)
                page.add_unreadable(name, str(error))
                results.append({"image": name, "error": str(error)})
            else:
                counter.add(name, explanation)
                predictions.append(explanation.prediction)
                results.append({**explanation.to_dict(), "files": page.add(explanation)})
    if as_json:
        printing.print_json(results)
    elif predictions:
        predict.print_predictions_table(predictions, network.labels)
    counter.finish(
        f"wrote {len(predictions):,} explained images to {out / gallery.PAGE_FILE}" if predictions else "", strict
    )


class _InputView(NamedTuple):
    """What --channels and --bits say of the images, and the images."""

    color: str | None
    bits: int | None
    images: list[str]

    def apply(self, preprocess: "Preprocess") -> "Preprocess":
        """Return the model's preprocessing as the options, or the set of images, want it."""
        from effnet.data import bit_depth

        found = bit_depth.choose_bits(preprocess, bit_depth.list_local_images(self.images), self.bits)
        return replace(found, color=self.color or found.color)


def _explain_beside(
    models: list[str],
    named: "Iterable[prediction_inputs.NamedImage]",
    out: Path,
    classes: list[str] | None,
    method: str,
    layer: str,
    strict: bool,
    device: str | None,
    as_json: bool,
    label_names: tuple[str, ...] | None,
    view: "_InputView",
) -> None:
    headings = list(map(options.display_name, models))
    headings = headings if len(set(headings)) == len(headings) else models
    loaded = [_load_on_device(name, device, label_names, view) for name in models]
    networks = list(zip(headings, loaded, strict=True))
    counter, results = printing.ReadCounter(), [(name, source, _find_read_error(source)) for name, source in named]
    for name, _, error in results:
        counter.add(name, error)
    labels = _split_class_names(classes, networks[0][1].labels.names)
    if labels is not None and len(labels) != len(results):
        raise options.UsageError(f"--classes needs one class per image: got {len(labels)} for {len(results)} images")
    readable = [index for index, (_, _, error) in enumerate(results) if error is None]
    if readable:
        chosen = None if labels is None else [labels[index] for index in readable]
        write_panel(out, networks, [results[index][1] for index in readable], chosen, method, layer)
    if as_json:
        rows = [{"image": name} | ({"error": str(error)} if error else {}) for name, _, error in results]
        printing.print_json({"written": str(out) if readable else None, "models": models, "images": rows})
    counter.finish(f"wrote {len(models)} models and {len(readable):,} images to {out}" if readable else "", strict)


def write_panel(path: Path, *networks_and_images: Any) -> None:
    """Write what `effnet.explanation.gallery.draw_panel` draws of its arguments as a PNG."""
    from effnet.data.storage.atomic_write import atomic_write
    from effnet.explanation.gallery import draw_panel

    panel = draw_panel(*networks_and_images)
    with atomic_write(path) as temporary:
        panel.save(temporary, "PNG")


def _find_read_error(source: "image_io.ImageSource | image_io.ImageError") -> "image_io.ImageError | None":
    from effnet.data import image_io

    if isinstance(source, image_io.ImageError):
        return source
    try:
        image_io.read_image(source)
    except image_io.ImageError as error:
        return error
    return None


def _load_on_device(
    model: "str | EfficientNet", device: str | None, labels: tuple[str, ...] | None, view: "_InputView"
) -> "EfficientNet":
    from effnet.explanation.explainer import load_network
    from effnet.runtime.torch import select_device

    network = options.rename_outputs(load_network(model) if isinstance(model, str) else model, labels)
    network.preprocess = view.apply(network.preprocess)
    return network.to(select_device(device))


def _split_class_names(classes: list[str] | None, names: Iterable[str]) -> list[str] | None:
    """Split ``a,b`` into two classes, unless one has that name."""
    if classes is None:
        return None
    known = set(names)
    return [part for text in classes for part in ([text] if text in known else map(str.strip, text.split(",")))]
