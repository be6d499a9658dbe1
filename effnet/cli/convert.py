"""``effnet convert``: weights into another ecosystem's layout, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import JsonOption, OfflineOption, refuse_existing

if TYPE_CHECKING:
    from effnet.metadata import Numerics, Preprocess


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file of weights of any ecosystem, or a card.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; its suffix says the format.")],
    to: Annotated[str, typer.Option("--to", metavar="LAYOUT", help="timm, torchvision, keras, tflite, effnet, …")],
    layout: Annotated[
        str | None, typer.Option("--from", metavar="LAYOUT", help="What IN is, where it cannot be recognised.")
    ] = None,
    arch: Annotated[str | None, typer.Option(metavar="ARCH", help="Which network IN is, likewise.")] = None,
    padding: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="same or symmetric: what IN's weights expect, where assumed wrong."),
    ] = None,
    bn_eps: Annotated[float | None, typer.Option(metavar="E", help="Their batch-norm ε, likewise.")] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="CARD", help="IN expects what this card does, as b5/tf_ap: numerics and preprocessing."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="Largest difference allowed, over the largest logit.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it is already there.")] = False,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Convert weights to another ecosystem's layout.

    What was written is read back and asked the same as the original; where the answers differ, it is an error and no
    file is left.
    """
    refuse_existing(target, force)
    from dataclasses import replace

    from effnet.arch.serde import check_choice
    from effnet.cli.printing import print_json, print_results
    from effnet.runtime.autotune import cache_engine
    from effnet.weights import catalog, load
    from effnet.weights.key_maps import LAYOUTS
    from effnet.weights.loading import read_weights
    from effnet.weights.resolve import resolve_weights
    from effnet.weights.saving import TOLERANCE, save_verified

    check_choice("--to", to, tuple(LAYOUTS))
    card = catalog.find_entry(like) if like else None
    numerics, preprocess = (card.numerics, card.preprocess) if card else (None, None)
    if padding is not None or bn_eps is not None:
        located = resolve_weights(source)
        before = numerics or read_weights(located.path, layout, arch, entry=located.entry).numerics
        numerics = replace(before, padding=padding or before.padding, bn_eps=bn_eps or before.bn_eps)
    model = load(source, layout, arch, numerics, preprocess=preprocess)
    done = save_verified(model, target, to, TOLERANCE if tolerance is None else tolerance)
    if to == "effnet":  # what other layouts leave out is assumed when they are opened, perhaps otherwise than here
        cache_engine(model, target)
    if as_json:
        print_json(
            {
                "written": str(done.path),
                "layout": done.layout,
                "arch": model.arch.name,
                "classes": model.classes,
                "difference": done.max_difference,
                "numerics": done.numerics.to_dict(),
                "preprocess": model.preprocess.to_dict(),
            }
        )
        return
    print_results(
        f"{done.path}: {model.arch.name} with {model.classes or 'no'} classes in {to}'s layout",
        f"read back and asked the same: largest difference {done.max_difference:.1e} of the largest logit",
        *([] if to == "effnet" else [_describe_expectations(done.numerics, model.preprocess)]),
    )


def _describe_expectations(numerics: Numerics, preprocess: Preprocess) -> str:
    """What whoever opens the file must know, because not every format can say so itself."""
    return f"it expects {numerics.describe()}; pictures {preprocess.describe()}"
