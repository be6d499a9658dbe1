"""``effnet predict … --out FILE``: whole folders, shards and stores into one table, a test table into a submission."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from effnet.prediction import Predictor
    from effnet.prediction.ensemble import Ensemble


def predict_into(
    out: Path,
    sources: list[str],
    make: Callable[[], Predictor | Ensemble],
    asked: Mapping[str, Any],
    top: int,
    every: float,
    cluster: str | None,
    force: bool,
    strict: bool,
) -> None:
    """Does the work under a bar and says what is in the result.

    The status is 1 where no picture could be read, where a shard could not be read to its end, and, if ``strict``,
    where any picture could not.
    """
    from effnet.cli.printing import note, progress
    from effnet.prediction.folder import predict_into

    with progress("predicting") as step:
        done = predict_into(
            out,
            sources,
            make,
            asked,
            top=top,
            every=every,
            cluster=cluster,
            force=force,
            progress=lambda pictures: step(pictures, None),
        )
    unread = f"; {done.unread} of them could not be read, and their rows say why" if done.unread else ""
    if done.before:
        note(f"{out} is finished already, with {done.pictures} pictures{unread}; --force predicts them again")
        return
    note(f"{done.pictures} pictures are in {out}{unread}")
    if done.broken:
        note(f"{done.broken} shards could not be read to their end: the same command tries them, and only them, again")
    if done.broken or done.unread == done.pictures or (strict and done.unread):
        raise typer.Exit(1)


def makes(
    members: Sequence[str], one: Callable[[str | Path], Predictor], fitted: bool
) -> Callable[[], Predictor | Ensemble]:
    """What makes the predictor: of a single model by ``one``, of a run of folds or several members an ensemble.

    ``fitted``: each member counts as its out-of-fold predictions say.
    """
    from effnet.cli.printing import note
    from effnet.prediction.ensemble import Ensemble, models_of, weigh

    if len(members) == 1 and not fitted and models_of(members[0]) == [members[0]]:
        return partial(one, members[0])
    weights = None
    if fitted:
        weighed = weigh(members)
        weights = weighed.weights
        note(weighed.in_words())
    return partial(Ensemble, list(members), weights, one)


def asked_of(members: Sequence[str], make: Callable[[], Any], **options: str) -> dict[str, Any]:
    """What tells these predictions from others (see `described`): an ensemble by all its files and their weights."""
    from effnet.prediction.ensemble import models_of
    from effnet.prediction.folder import described

    if options.get("tta") == "none":
        del options["tta"]  # as results were noted before there was any
    models = [model for member in members for model in models_of(member)]
    each = [described(model, **options) for model in models]
    if len(each) == 1:
        return each[0]
    weights = make.args[1] if isinstance(make, partial) else None
    mixed = sha256("".join(found["sha256"] for found in each).encode()).hexdigest()
    return {
        **each[0],
        "model": " ".join(members),
        "sha256": mixed,
        "weights": weights and [f"{w:.6f}" for w in weights],
    }


def submit_into(
    out: Path, table: str, make: Callable[[], Predictor | Ensemble], probabilities: bool, force: bool, strict: bool
) -> None:
    """Writes the submission for the pictures of ``table`` and says what is in it; ``strict``: as of `predict_into`."""
    from effnet.cli.printing import note, progress
    from effnet.prediction.submission import refuse, submit

    refuse(out, force)  # before models are opened
    with progress("predicting") as step:
        predictor = make()
        done = submit(table, predictor, out, probabilities=probabilities, force=force, progress=step)
    predictor.keep()
    for why in done.unread:
        note(why)
    if done.unread:
        note(f"{len(done.unread)} of {done.rows} pictures could not be read: they have the mean answer of the others")
    columns = ", ".join(done.columns[:4]) + (", …" if len(done.columns) > 4 else "")
    note(f"{done.rows} rows of {columns} are in {out}{f', as {done.sample} has it' if done.sample else ''}")
    if done.unread and strict:
        raise typer.Exit(1)
