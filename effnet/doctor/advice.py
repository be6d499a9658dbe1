"""What the doctor says: the finding that a change of the configuration becomes, and its remedy."""

from collections.abc import Sequence

from effnet.doctor.diagnosis import Configuration, Finding
from effnet.doctor.hypotheses import RESAMPLING_NAMES, Hypothesis, LikelihoodScore, compare_scores
from effnet.weights.running_statistics import NumericsFit

_MAX_LISTED_LABELS = 4


def score_finding(
    change: Hypothesis, current: Configuration, new: LikelihoodScore, old: LikelihoodScore, names: Sequence[str]
) -> Finding:
    """Return the finding that ``change`` of the current configuration scores significantly better."""
    gain, (fault, remedy) = compare_scores(new, old), describe_change(change, current, names)
    observation = (
        f"{fault}: on {len(new.right)} images top-1 goes from {old.top1:.1%} to {new.top1:.1%} "
        f"({100 * gain.top1:+.1f} ± {100 * gain.top1_error:.1f} points), log-likelihood from "
        f"{old.likelihood.mean():.3f} to {new.likelihood.mean():.3f} ({gain.likelihood:+.3f} ± "
        f"{gain.likelihood_error:.3f})"
    )
    evidence = {
        "top1": old.top1,
        "new_top1": new.top1,
        "top1_gain": gain.top1,
        "top1_error": gain.top1_error,
        "gain": gain.likelihood,
        "error": gain.likelihood_error,
        "images": len(new.right),
    }
    return Finding(change.code, "wrong", observation, remedy, evidence)


def stem_finding(change: Hypothesis, current: Configuration, shift: float, old_shift: float, images: int) -> Finding:
    """Return the finding that ``change`` brings the stem's statistics closer to the stored ones."""
    fault, remedy = describe_change(change, current)
    observation = (
        f"{fault}: on {images} images the stem's batch-norm statistics are then {shift:.2f} standard deviations off "
        f"the stored ones, instead of {old_shift:.2f}"
    )
    evidence = {"shift": old_shift, "new_shift": shift, "images": images}
    return Finding(change.code, "suspect", observation, remedy, evidence)


def running_statistics_finding(change: Hypothesis, current: Configuration, fit: NumericsFit) -> Finding:
    """Return the finding that all layers' running statistics fit ``change`` better."""
    fault, remedy = describe_change(change, current)
    if change.code == "padding":
        evidence = {"ratio": abs(fit.padding_ratio), "standard_errors": abs(fit.padding_errors)}
    else:
        evidence = {"share": max(fit.epsilon_share, 1 - fit.epsilon_share), "channels": fit.epsilon_channels}
    return Finding(change.code, "suspect", f"{fault}: {fit.describe()}", remedy, evidence)


def unlike_training_finding(shift: float, images: int) -> Finding:
    """Return the finding that no configuration brings the stem's statistics close to the stored ones."""
    observation = (
        f"on {images} images the stem's batch-norm statistics are {shift:.2f} standard deviations off the stored ones, "
        "and no usual mean, std or channel order brings them closer"
    )
    remedy = "check whether these images are like the training images; labeled images show more"
    return Finding("unlike-training", "suspect", observation, remedy, {"shift": shift, "images": images})


def unknown_labels_finding(missing: Sequence[str], known: Sequence[str]) -> Finding:
    """Return the finding that the data has classes which the model does not know."""
    absent, present = (join_first([*map(repr, names)], _MAX_LISTED_LABELS) for names in (missing, known))
    observation = (
        f"{len(missing)} classes of the data are not among the model's labels: {absent}; the model's labels include "
        f"{present}"
    )
    remedy = "use the same names for folders and labels; images of these classes were skipped"
    return Finding("labels-unknown", "wrong", observation, remedy, {"classes": len(missing)})


def describe_change(change: Hypothesis, current: Configuration, names: Sequence[str] = ()) -> tuple[str, str]:
    """Return what was wrong, and what to do; ``names`` are the labels."""
    new, what, preprocess, numerics = change.configuration, change.description, current.preprocess, current.numerics
    if change.code == "labels-shifted":
        outputs = max(*current.label_order, *new.label_order) + 1
        where = "after" if new.label_order[0] == (current.label_order[0] + 1) % outputs else "before"
        return (
            f"the labels are shifted by one: each belongs to the output {where} its own",
            f"move the labels by one: output {new.label_order[0]} is {names[0]!r}",
        )
    if change.code == "labels-order":
        orders = zip(names, current.label_order, new.label_order, strict=True)
        moved = [f"output {output} is {name!r}" for name, old, output in orders if old != output]
        return (
            f"the labels are in another order than the outputs ({what})",
            f"reorder the labels: {join_first(moved, _MAX_LISTED_LABELS)}",
        )
    to = new.preprocess
    crop = f"crop {preprocess.crop_fraction:.3g}" if preprocess.resize == "crop" else "squashing"
    fraction = f", crop_fraction {to.crop_fraction:.4g}" if to.resize == "crop" else ""
    mean, std = (f"({', '.join(f'{value:.4g}' for value in values)})" for values in (to.mean, to.std))
    load_with = f"load the weights with Numerics({new.numerics.padding!r}, bn_eps={new.numerics.bn_eps:g})"
    return {
        "mean-std": (f"mean and std are wrong: the weights match {what}", f"preprocess: mean {mean}, std {std}"),
        "channel-order": (
            f"the weights expect channels as {'BGR' if new.bgr else 'RGB'}",
            "swap the first and the last input channel of the stem's convolution",
        ),
        "rescaled-twice": (
            f"the weights were trained on values {what}",
            f"preprocess: {'multiply' if new.rescaled_twice else 'divide'} mean and std by 255",
        ),
        "size": (f"{what} are better than {'×'.join(map(str, preprocess.size))}", f"preprocess: size {to.size}"),
        "crop": (f"{what} is better than {crop}", f"preprocess: resize {to.resize!r}{fraction}"),
        "interpolation": (
            f"{what} is better than {preprocess.interpolation}",
            f"preprocess: interpolation {to.interpolation!r}",
        ),
        "resampling": (
            f"{what} is better than that of {RESAMPLING_NAMES[preprocess.resampling]}",
            f"preprocess: resampling {to.resampling!r}",
        ),
        "epsilon": (f"batch-norm ε is wrong: {new.numerics.bn_eps:g} matches, not {numerics.bn_eps:g}", load_with),
        "padding": (f"padding is wrong: {new.numerics.padding} matches, not {numerics.padding}", load_with),
        "statistics": (
            "the batch-norm statistics do not match the weights: those of these images do",
            "recompute them on training images; TensorFlow's momentum of 0.99 is 0.01 in PyTorch",
        ),
    }[change.code]


def join_first(texts: Sequence[str], count: int = 3) -> str:
    """Return the first ``count`` texts, and how many more there are."""
    return ", ".join(texts[:count]) + (f" and {len(texts) - count} more" if len(texts) > count else "")
