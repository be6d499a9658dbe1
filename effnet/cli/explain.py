"""``effnet explain``: which parts of pictures speak for a class."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import Batch, Device, Every, Json, Model, Offline, Strict, vacant

if TYPE_CHECKING:
    from effnet.data.gather import Named
    from effnet.net import EfficientNet
    from effnet.prediction import Prediction


class Method(StrEnum):
    """How it is found out."""

    cam = "cam"
    gradcam = "gradcam"
    occlusion = "occlusion"


class Drop(StrEnum):
    """What occlusion measures."""

    logit = "logit"
    probability = "probability"


def explain(
    model: Model,
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
        Method | None,
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
    drop: Annotated[Drop | None, typer.Option(help="occlusion: what is lost, of the logit by default.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the maps as .npy, too.")] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Draw one panel, MODEL beside this one; once for each. --classes: one a row."
        ),
    ] = None,
    every: Every = 1.0,
    batch: Batch = 16,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result in FOLDER.")] = False,
    strict: Strict = False,
    device: Device = None,
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """Show which parts of pictures speak for a class.

    Heat maps over the photos, in a page to look through. Pictures that cannot be read are named and left out; the
    status is 1 where none could be read.
    """
    how = (method or (Method.gradcam if at else Method.cam)).value
    if how != "occlusion" and (patch or stride or drop):
        raise typer.BadParameter("give them with --method occlusion", param_hint="--patch, --stride, --drop")
    if at and how != "gradcam":
        raise typer.BadParameter("goes with --method gradcam", param_hint="--at")
    if beside:
        if out.suffix.lower() != ".png":
            raise typer.BadParameter("a panel is one picture: give a name that ends in .png", param_hint="--out")
        if raw or how == "occlusion":
            raise typer.BadParameter("a panel goes without --raw and occlusion", param_hint="--beside")
        vacant(out, force)
    from effnet.data.gather import gather

    named = gather(pictures, every)  # before torch is imported: a file that is not there is told at once
    if beside:
        _panel([model, *beside], named, out, classes, how, at or "head", strict, device, as_json)
        return
    from effnet.cli.printing import progress, show_json
    from effnet.cli.tally import Tally
    from effnet.data.pixels import PictureError
    from effnet.explanation.album import PAGE, Album
    from effnet.explanation.explain import explain as explained

    with Album(out, f"Where {_called(model)} looks", how, at or "head", raw, force) as album:
        network = _opened(model, device)
        ask = partial(
            explained,
            network,
            classes=_split(classes, network.labels.names),
            top=top,
            method=how,
            at=at or "head",
            patch=patch,
            stride=stride,
            drop=drop.value if drop else "logit",
            batch=batch,
        )
        told: list[dict[str, Any]] = []
        rows: list[Prediction] = []
        with progress("explaining") as step:
            tally = Tally(step)
            for name, source in named:
                try:
                    if isinstance(source, PictureError):
                        raise source
                    found = ask(source, name=name)
                except PictureError as error:
                    tally.read_one(name, error)
                    album.leave_out(name, str(error))
                    told.append({"picture": name, "error": str(error)})
                else:
                    told.append({**found.to_dict(), "files": album.add(found)})
                    rows.append(found.prediction)
                    tally.read_one(name, found)
    if as_json:
        show_json(told)
    elif rows:
        from effnet.cli.predictions import print_table

        print_table(rows, network.labels)
    tally.end(f"{len(rows):,} pictures are explained in {out / PAGE}" if rows else "", strict)


def _panel(
    models: list[str],
    named: Iterable[Named],
    out: Path,
    classes: list[str] | None,
    method: str,
    at: str,
    strict: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Writes the models side by side."""
    from effnet.cli.printing import show_json
    from effnet.cli.tally import Tally
    from effnet.data.pixels import PictureError, Source, read
    from effnet.data.storage.atomic import replacing
    from effnet.explanation.panel import panel

    heads = list(map(_called, models))
    heads = heads if len(set(heads)) == len(heads) else models
    networks = [(head, _opened(name, device)) for head, name in zip(heads, models, strict=True)]
    readable: list[Source] = []
    tally = Tally()
    told: list[dict[str, Any]] = []
    for name, source in named:
        try:
            if isinstance(source, PictureError):
                raise source
            read(source)
        except PictureError as error:
            tally.read_one(name, error)
            told.append({"picture": name, "error": str(error)})
        else:
            tally.read_one(name, None)
            readable.append(source)
            told.append({"picture": name})
    wanted = _split(classes, networks[0][1].labels.names)
    if wanted is not None:
        if len(wanted) != len(told):
            why = f"{len(told)} pictures need as many classes, not {len(wanted)}: give one a picture, or none"
            raise typer.BadParameter(why, param_hint="--classes")
        wanted = [label for label, one in zip(wanted, told, strict=True) if "error" not in one]
    if readable:
        made = panel(networks, readable, wanted, method, at)
        with replacing(out) as beside:
            made.save(beside, "PNG")
    if as_json:
        show_json({"written": str(out) if readable else None, "models": models, "pictures": told})
    tally.end(f"{len(models)} models and {len(readable):,} pictures are in {out}" if readable else "", strict)


def _opened(model: str, device: str | None) -> EfficientNet:
    from effnet.explanation.explain import opened
    from effnet.net.device import pick

    network = opened(model)
    return network.to(pick(device))


def _called(model: str) -> str:
    """What stands above its maps: of a path the last part, but that all runs call their model the same."""
    path = Path(model)
    if not path.exists():
        return model
    return path.parent.name if path.name == "model.safetensors" and path.parent.name else path.resolve().name


def _split(given: list[str] | None, names: Iterable[str]) -> list[str] | None:
    """``a,b`` as two classes, unless one is called that."""
    if given is None:
        return None
    known = set(names)
    return [part for one in given for part in ([one] if one in known else map(str.strip, one.split(",")))]
