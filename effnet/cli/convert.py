"""``effnet convert``: weights in another library's layout, verified."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options


@with_weights_options()
def convert(
    source: Annotated[str, Argument(metavar="IN", help="A weights file of any library, or a published one.")],
    target: Annotated[Path, Argument(metavar="OUT", help="The file to write; its suffix gives the format.")],
    to: Annotated[str, Option("--to", metavar="LAYOUT", help="timm, torchvision, keras, tflite, effnet, …")],
    layout: Annotated[
        str | None, Option("--from", metavar="LAYOUT", help="Layout of IN, if it is not detected.")
    ] = None,
    arch: Annotated[str | None, Option(metavar="ARCH", help="Architecture of IN, if it is not detected.")] = None,
    part: WeightsOptions = AS_STATED,
    like: Annotated[
        str | None, Option(metavar="NAME", help="Take numerics and preprocessing from these weights, such as b5/tf_ap.")
    ] = None,
    labels: options.LabelsOption = None,
    tolerance: options.ToleranceOption = None,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Convert weights to another library's layout.

    The result is read back and compared with the original; if the outputs differ, it is an error and no file is left.
    """
    options.refuse_existing(target, force)
    from effnet.arch.serde import check_choice
    from effnet.runtime.autotune import cache_engine
    from effnet.weights import catalog, key_maps, saving

    check_choice("--to", to, tuple(key_maps.LAYOUTS))
    entry = catalog.find_entry(like) if like else None
    numerics, images = (entry.numerics, entry.preprocess) if entry else (None, None)
    names = options.read_labels(labels)
    model = part.load(source, names, layout=layout, arch=arch, numerics=numerics, preprocess=images)
    result = saving.save_verified(model, target, to, saving.TOLERANCE if tolerance is None else tolerance)
    if to == "effnet":  # other layouts leave things out, which a later load may assume otherwise
        cache_engine(model, target)
    if as_json:
        written = {"written": str(result.path), "layout": result.layout, "arch": model.arch.name}
        outputs = {"classes": model.classes, "difference": result.max_difference}
        contract = {"numerics": result.numerics.to_dict(), "preprocess": model.preprocess.to_dict()}
        printing.print_json(written | outputs | contract)
        return
    expected = f"it expects {result.numerics.describe()}; images {model.preprocess.describe()}"
    printing.print_results(
        f"{result.path}: {model.arch.name} with {model.classes or 'no'} classes in the layout of {to}",
        f"verified by reading it back: largest difference {result.max_difference:.1e} of the largest logit",
        *([] if to == "effnet" else [expected]),  # which not every format can store
    )
