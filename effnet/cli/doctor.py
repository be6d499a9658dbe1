"""``effnet doctor``: what makes accuracy silently low."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import DeviceOption, JsonOption, OfflineOption

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.doctor import Diagnosis
    from effnet.doctor.diagnosis import ConfigurationTrial, Finding

MAX_TRIALS_PER_LATER_ROUND = 3  # trials shown of a round after the first


def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file of weights, or a run's folder.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder with one folder of pictures a class, or of pictures alone; or the word digits.",
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(min=20, metavar="N", help="At most this many, balanced over classes.")] = 200,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, val or test; by default the last of these there is.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model with everything mended (.safetensors).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which pictures are taken.")] = 0,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Find what makes a model's accuracy silently low.

    Without DATA the numbers alone are looked at. On labelled pictures every neighbour of the model's contract is tried:
    mean and std, channel order, size, crop, resize, padding, batch norm, the order of labels. A difference is called a
    finding only where it is surely above chance.
    """
    from effnet.cli.printing import note, print_json, progress_bar
    from effnet.doctor import diagnose, repair_model
    from effnet.weights import load, save

    if fix and fix.suffix != ".safetensors":
        raise typer.BadParameter(f"{fix} must end in .safetensors", param_hint="--fix")
    network = load(model)
    with progress_bar("trying") as step:
        found = diagnose(network, data, pictures, seed, split, device, progress=step)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, data, bool(fix))
    if fix:
        if found.healthy:
            note(f"nothing to mend: {fix} is not written")
        else:
            note(f"written: {save(repair_model(network, found, data, pictures, seed, split), fix)}")


def _print(found: Diagnosis, data: str | None, fixed: bool) -> None:
    from effnet.cli.printing import format_percent, print_results

    parts: list[Table | str] = []
    if found.trials:
        parts.append(_trials_table(found))
    gravest = [finding for finding in found.findings if finding.severity != "remark"]
    parts += [_format_finding(finding, number) for number, finding in enumerate(gravest, start=1)]
    if not gravest:
        parts.append(f"nothing found{_describe_scope(found, data)}")
    elif found.best_top1 is not None and found.top1 is not None and found.best_top1 != found.top1:
        how = "" if fixed else "; --fix FILE writes the mended model"
        parts.append(
            f"in all: top-1 {format_percent(found.top1)} as it is, {format_percent(found.best_top1)} mended{how}"
        )
    parts += [f"remark: {finding.observation}" for finding in found.findings if finding.severity == "remark"]
    if found.skipped:
        parts += [f"left out, since they could not be read: {len(found.skipped)}"]
        parts += [f"  {why}" for why in found.skipped]
    print_results(*parts)


def _describe_scope(found: Diagnosis, data: str | None) -> str:
    """How far "nothing" goes."""
    if data is None:
        return " in the numbers; labelled pictures tell much more: effnet doctor MODEL DATA"
    if not found.labeled:
        return " that the stem's statistics tell; labelled pictures tell much more"
    return f": nothing that was tried is surely better on {found.images} pictures; more of them tell finer differences"


def _format_finding(finding: Finding, number: int) -> str:
    sign = "" if finding.severity == "wrong" else f"{finding.severity}: "
    return f"{number}. {sign}{finding.code}: {finding.observation}\n   remedy: {finding.remedy}"


def _trials_table(found: Diagnosis) -> Table:
    """Every trial of the first round and the best of the later ones, with how far the stem's statistics are off."""
    from effnet.cli.printing import format_percent, new_table

    if not found.labeled:
        listed = new_table("tried", "statistics off by", left=("tried",))
        for trial in found.trials:
            listed.add_row(_trial_name(trial), f"{trial.shift:.2f} σ")
        return listed
    headings = ("tried", "pictures", "top-1", "points", "log-likelihood", "difference", "", "statistics off by")
    listed = new_table(*headings, left=("tried", ""))
    for trial in _select_trials(found.trials):
        assert trial.top1 is not None
        assert trial.log_likelihood is not None
        assert trial.top1_gain is not None
        assert trial.top1_error is not None
        assert trial.gain is not None
        assert trial.error is not None
        differences = ("", "", "")
        if trial.code:
            differences = (
                f"{100 * trial.top1_gain:+.1f} ± {100 * trial.top1_error:.1f}",
                f"{trial.gain:+.3f} ± {trial.error:.3f}",
                _trial_verdict(trial),
            )
        listed.add_row(
            _trial_name(trial),
            str(trial.images),
            format_percent(trial.top1),
            differences[0],
            f"{trial.log_likelihood:.3f}",
            *differences[1:],
            f"{trial.shift:.2f} σ",
        )
    return listed


def _select_trials(trials: tuple[ConfigurationTrial, ...]) -> list[ConfigurationTrial]:
    shown = [trial for trial in trials if trial.round == 1]
    for number in range(2, max(trial.round for trial in trials) + 1):
        later = [trial for trial in trials if trial.round == number]
        shown += sorted(later, key=lambda trial: -(trial.gain or 0))[:MAX_TRIALS_PER_LATER_ROUND]
    return shown


def _trial_name(trial: ConfigurationTrial) -> str:
    return trial.description if trial.round == 1 else f"{trial.round}. and {trial.description}"


def _trial_verdict(trial: ConfigurationTrial) -> str:
    """In a word: better or worse where that is more than chance."""
    assert trial.gain is not None
    assert trial.error is not None
    if abs(trial.gain) < 3 * trial.error:
        return ""
    return "better" if trial.gain > 0 else "worse"
