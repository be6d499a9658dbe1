"""``effnet doctor``: what makes a model's accuracy silently low."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from typer import Argument, Option

from effnet.arch import serde
from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from rich.table import Table

    from effnet.doctor import ConfigurationTrial, Diagnosis

MAX_TRIALS_PER_LATER_ROUND = 3
SIGNIFICANT_STANDARD_ERRORS = 3


@with_weights_options()
def doctor(
    model: Annotated[str, Argument(metavar="MODEL", help="A weights file or a run directory.")],
    data: Annotated[
        str | None,
        Argument(
            metavar="DATA",
            help="A folder with one subfolder per class, a folder of unlabeled images, or the word digits.",
        ),
    ] = None,
    max_images: Annotated[int, options.number("Use at most N images, balanced over classes.", min=20)] = 200,
    split: options.SplitOption = None,
    part: WeightsOptions = AS_STATED,
    labels: options.LabelsOption = None,
    bits: options.BitsOption = None,
    fix: Annotated[Path | None, Option(metavar="FILE", help="Write the repaired model (.safetensors).")] = None,
    seed: Annotated[int, options.number("Seed of the choice of images.", min=0, max=serde.MAX_SEED)] = 0,
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Find what makes a model's accuracy silently low.

    Without DATA only the weights are checked, with padding and batch norm on two photos. On labeled images every
    variation of the model's preprocessing is tried: mean and std, channel order, size, crop, resize, padding, batch
    norm, label order. A difference is reported only if it is statistically significant.
    """
    from effnet.doctor import diagnose, repair_model
    from effnet.weights import save

    if fix and fix.suffix != ".safetensors":
        raise options.UsageError(f"--fix {fix}: the file name must end in .safetensors")
    network = part.load(model, options.read_labels(labels))
    with printing.progress_bar("checking") as step:
        diagnosis = diagnose(network, data, max_images, seed, split, device, progress=step, bits=bits)
    printing.print_json(diagnosis.to_dict()) if as_json else _print_diagnosis(diagnosis, data, bool(fix))
    if fix and diagnosis.healthy:
        printing.note(f"nothing to repair: {fix} is not written")
    elif fix:
        printing.note(f"wrote {save(repair_model(network, diagnosis, data, max_images, seed, split), fix)}")


def _print_diagnosis(diagnosis: "Diagnosis", data: str | None, fixed: bool) -> None:
    parts: list[Table | str] = [_trials_table(diagnosis)] if diagnosis.trials else []
    problems = [finding for finding in diagnosis.findings if finding.severity != "remark"]
    for number, finding in enumerate(problems, start=1):
        severity = "" if finding.severity == "wrong" else f"{finding.severity}: "
        parts.append(f"{number}. {severity}{finding.code}: {finding.observation}\n   remedy: {finding.remedy}")
    before, after = diagnosis.top1, diagnosis.best_top1
    if not problems:
        parts.append(f"no problems found{_describe_scope(diagnosis, data)}")
    elif before is not None and after is not None and before != after:
        hint = "" if fixed else "; --fix FILE writes the repaired model"
        parts.append(
            f"total: top-1 {printing.format_percent(before)} now, {printing.format_percent(after)} repaired{hint}"
        )
    parts += [f"remark: {finding.observation}" for finding in diagnosis.findings if finding.severity == "remark"]
    printing.print_results(*parts, *printing.describe_skipped(diagnosis.skipped))


def _describe_scope(diagnosis: "Diagnosis", data: str | None) -> str:
    """Say what "no problems" covers."""
    if data is None:
        return " in the weights; labeled images reveal much more: effnet doctor MODEL DATA"
    if not diagnosis.labeled:
        return " in the running statistics; labeled images reveal much more"
    found = f": no variation is significantly better on {diagnosis.images} images"
    return f"{found}; more images reveal smaller differences"


def _trials_table(diagnosis: "Diagnosis") -> "Table":
    """Return the trials of the first round and the best of later ones, with the shift of the stem's statistics."""
    if not diagnosis.labeled:
        rows = ((_trial_name(trial), f"{trial.shift:.2f} σ") for trial in diagnosis.trials)
        return printing.new_table("variation", "statistics off by", left=("variation",), rows=rows)
    headings = ("variation", "images", "top-1", "points", "log-likelihood", "difference", "", "statistics off by")
    table = printing.new_table(*headings, left=("variation", ""))
    for trial in _select_trials(diagnosis.trials):
        metrics = (trial.top1, trial.log_likelihood, trial.top1_gain, trial.top1_error, trial.gain, trial.error)
        top1, likelihood, top1_gain, top1_error, gain, error = cast(tuple[float, ...], metrics)
        points = difference = verdict = ""
        if trial.code:
            points = f"{100 * top1_gain:+.1f} ± {100 * top1_error:.1f}"
            difference = f"{gain:+.3f} ± {error:.3f}"
            if abs(gain) >= SIGNIFICANT_STANDARD_ERRORS * error:
                verdict = "better" if gain > 0 else "worse"
        table.add_row(
            *(_trial_name(trial), str(trial.images), printing.format_percent(top1), points),
            *(f"{likelihood:.3f}", difference, verdict, f"{trial.shift:.2f} σ"),
        )
    return table


def _select_trials(trials: "tuple[ConfigurationTrial, ...]") -> "list[ConfigurationTrial]":
    selected = [trial for trial in trials if trial.round == 1]
    for number in range(2, max(trial.round for trial in trials) + 1):
        later = [trial for trial in trials if trial.round == number]
        selected += sorted(later, key=lambda trial: -(trial.gain or 0))[:MAX_TRIALS_PER_LATER_ROUND]
    return selected


def _trial_name(trial: "ConfigurationTrial") -> str:
    return trial.description if trial.round == 1 else f"{trial.round}. and {trial.description}"
