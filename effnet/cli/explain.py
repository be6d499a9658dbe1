"""``effnet explain``: which parts of pictures speak for a class."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import (
    BatchSizeOption,
    DeviceOption,
    FrameIntervalOption,
    JsonOption,
    ModelArgument,
    OfflineOption,
    StrictOption,
    refuse_existing,
)

if TYPE_CHECKING:
    from effnet.data.inputs import NamedImage
    from effnet.net import EfficientNet
    from effnet.prediction import Prediction


class ExplainMethod(StrEnum):
    """How it is found out."""

    cam = "cam"
    gradcam = "gradcam"
    occlusion = "occlusion"


class OcclusionMeasure(StrEnum):
    """What occlusion measures."""

    logit = "logit"
    probability = "probability"


def explain(
    model: ModelArgument,
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE", help="Files, folders, patterns, addresses, videos; - is standard input."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="For overlays, index.html and index.csv; with --beside a .png.")
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Explain these: names or numbers, with commas or given several times."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Without --classes: explain so many likeliest.")] = 3,
    method: Annotated[
        ExplainMethod | None,
        typer.Option(
            help="cam is exact, and the default; gradcam is of any part; occlusion covers parts of the picture."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="PART", help="gradcam's part: stem, stage1 …, head; implies gradcam.")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="occlusion: a seventh of the side by default.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="occlusion: half the patch by default.")
    ] = None,
    drop: Annotated[
        OcclusionMeasure | None, typer.Option(help="occlusion: what is lost, of the logit by default.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the maps as .npy, too.")] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Draw one panel, MODEL beside this one; once for each. --classes: one a row."
        ),
    ] = None,
    every: FrameIntervalOption = 1.0,
    batch: BatchSizeOption = 16,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result in FOLDER.")] = False,
    strict: StrictOption = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Show which parts of pictures speak for a class.

    Heat maps over the photos, in a page to look through. Pictures that cannot be read are named and left out; the
    status is 1 where none could be read.
    """
    how = (method or (ExplainMethod.gradcam if at else ExplainMethod.cam)).value
    if how != "occlusion" and (patch or stride or drop):
        raise typer.BadParameter("give them with --method occlusion", param_hint="--patch, --stride, --drop")
    if at and how != "gradcam":
        raise typer.BadParameter("goes with --method gradcam", param_hint="--at")
    if beside:
        if out.suffix.lower() != ".png":
            raise typer.BadParameter("a panel is one picture: give a name that ends in .png", param_hint="--out")
        if raw or how == "occlusion":
            raise typer.BadParameter("a panel goes without --raw and occlusion", param_hint="--beside")
        refuse_existing(out, force)
    from effnet.data.inputs import open_inputs

    named = open_inputs(pictures, every)  # before torch is imported: a file that is not there is told at once
    if beside:
        _write_panel([model, *beside], named, out, classes, how, at or "head", strict, device, as_json)
        return
    from effnet.cli.printing import ReadCounter, print_json, progress_bar
    from effnet.data.image_io import ImageError
    from effnet.explanation.explainer import explain as explained
    from effnet.explanation.gallery import PAGE_FILE, Gallery

    with Gallery(out, f"Where {_display_name(model)} looks", how, at or "head", raw, force) as gallery:
        network = _load_on_device(model, device)
        ask = partial(
            explained,
            network,
            classes=_split_class_names(classes, network.labels.names),
            top=top,
            method=how,
            layer=at or "head",
            patch=patch,
            stride=stride,
            drop=drop.value if drop else "logit",
            batch_size=batch,
        )
        told: list[dict[str, Any]] = []
        rows: list[Prediction] = []
        with progress_bar("explaining") as step:
            tally = ReadCounter(step)
            for name, source in named:
                try:
                    if isinstance(source, ImageError):
                        raise source
                    found = ask(source, name=name)
                except ImageError as error:
                    tally.add(name, error)
                    gallery.add_unreadable(name, str(error))
                    told.append({"picture": name, "error": str(error)})
                else:
                    told.append({**found.to_dict(), "files": gallery.add(found)})
                    rows.append(found.prediction)
                    tally.add(name, found)
    if as_json:
        print_json(told)
    elif rows:
        from effnet.cli.predict import print_predictions_table

        print_predictions_table(rows, network.labels)
    tally.finish(f"{len(rows):,} pictures are explained in {out / PAGE_FILE}" if rows else "", strict)


def _write_panel(
    models: list[str],
    named: Iterable[NamedImage],
    out: Path,
    classes: list[str] | None,
    method: str,
    at: str,
    strict: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Writes the models side by side."""
    from effnet.cli.printing import ReadCounter, print_json
    from effnet.data.image_io import ImageError, ImageSource, read_image
    from effnet.data.storage.atomic_write import atomic_write
    from effnet.explanation.panel import draw_panel

    heads = list(map(_display_name, models))
    heads = heads if len(set(heads)) == len(heads) else models
    networks = [(head, _load_on_device(name, device)) for head, name in zip(heads, models, strict=True)]
    readable: list[ImageSource] = []
    tally = ReadCounter()
    told: list[dict[str, Any]] = []
    for name, source in named:
        try:
            if isinstance(source, ImageError):
                raise source
            read_image(source)
        except ImageError as error:
            tally.add(name, error)
            told.append({"picture": name, "error": str(error)})
        else:
            tally.add(name, None)
            readable.append(source)
            told.append({"picture": name})
    wanted = _split_class_names(classes, networks[0][1].labels.names)
    if wanted is not None:
        if len(wanted) != len(told):
            why = f"{len(told)} pictures need as many classes, not {len(wanted)}: give one a picture, or none"
            raise typer.BadParameter(why, param_hint="--classes")
        wanted = [label for label, one in zip(wanted, told, strict=True) if "error" not in one]
    if readable:
        made = draw_panel(networks, readable, wanted, method, at)
        with atomic_write(out) as beside:
            made.save(beside, "PNG")
    if as_json:
        print_json({"written": str(out) if readable else None, "models": models, "pictures": told})
    tally.finish(f"{len(models)} models and {len(readable):,} pictures are in {out}" if readable else "", strict)


def _load_on_device(model: str, device: str | None) -> EfficientNet:
    from effnet.explanation.explainer import load_network
    from effnet.runtime.torch import select_device

    network = load_network(model)
    return network.to(select_device(device))


def _display_name(model: str) -> str:
    """What stands above its maps: of a path the last part, but that all runs call their model the same."""
    path = Path(model)
    if not path.exists():
        return model
    return path.parent.name if path.name == "model.safetensors" and path.parent.name else path.resolve().name


def _split_class_names(given: list[str] | None, names: Iterable[str]) -> list[str] | None:
    """``a,b`` as two classes, unless one is called that."""
    if given is None:
        return None
    known = set(names)
    return [part for one in given for part in ([one] if one in known else map(str.strip, one.split(",")))]
