"""``effnet train``: from labelled pictures to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import Offline

if TYPE_CHECKING:
    from effnet.training.folder import Result


def train(
    data: Annotated[str, typer.Argument(help="A folder with one folder of pictures a class, or the word digits.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="The network, such as b0 or lite0.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="A file or a card to start from (default: the model's own), or none: random.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="finetune (default with weights), probe, or scratch (default without).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the results go; by default runs/NAME-OF-DATA.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training, in place of the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="As many epochs as take about this long.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a batch, in place of the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate, in place of the recipe's.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the pictures in pixels, in place of the network's.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model on the same machine.")] = 0,
    select_on: Annotated[
        str, typer.Option(help="What choices are made on: holdout (a part of the training pictures) or val.")
    ] = "holdout",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or start it.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a picture that cannot be read.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; by default the fastest that is there.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read pictures.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    offline: Offline = False,
) -> None:
    """Train a classifier on your pictures."""
    from effnet.cli.progress import Shown
    from effnet.training.run import train as run

    with Shown() as watch:
        result = run(
            data,
            recipe,
            out=out or Path("runs") / Path(data).resolve().name,
            model=model,
            weights=weights,
            epochs=epochs,
            minutes=minutes,
            batch=batch,
            learning_rate=lr,
            seed=seed,
            size=size,
            select_on=select_on,
            resume=resume,
            strict=strict,
            device=device,
            workers=workers,
            watch=watch,
        )
    if json:
        from json import dumps

        print(dumps(result.to_dict()))
    else:
        _print(result)


def _print(result: Result) -> None:
    """The figures on what no choice has seen, and where everything lies."""
    for name, found in result.evaluations.items():
        right = round(found.top1 * found.pictures)
        print(
            f"{name}: {found.top1:.2%} right ({right} of {found.pictures} pictures), "
            f"top-5 {found.top5:.2%}, calibration error {found.calibration_error:.3f}"
        )
    print(f"model:  {result.model}")
    print(f"report: {result.model.with_name('report.html')}")
    print(f"try:    effnet predict PICTURE --model {result.model}")
