"""What is said of each cause: what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.doctor.diagnosis import Finding, Reading
from effnet.doctor.gain import Gain, Score
from effnet.doctor.neighbours import WHOSE, Change

_SHOWN = 4  # labels of an order that are listed


def by_score(change: Change, now: Reading, new: Score, old: Score, better: Gain, names: Sequence[str]) -> Finding:
    """The finding that ``change`` of ``now`` scores surely better."""
    seen = (
        f"{_words(change, now)}: on {len(new.right)} pictures top-1 goes from {old.top1:.1%} to {new.top1:.1%} "
        f"({points(better.top1, better.top1_error)}), log-likelihood from {old.likelihood.mean():.3f} to "
        f"{new.likelihood.mean():.3f} ({better.likelihood:+.3f} ± {better.likelihood_error:.3f})"
    )
    evidence = {
        "top1": old.top1,
        "new_top1": new.top1,
        "top1_gain": better.top1,
        "top1_error": better.top1_error,
        "gain": better.likelihood,
        "error": better.likelihood_error,
        "pictures": len(new.right),
    }
    return Finding(change.code, "wrong", seen, remedy(change, now, names), evidence)


def by_stem(change: Change, now: Reading, new: float, old: float, pictures: int) -> Finding:
    """The finding that under ``change`` of ``now`` the stem's statistics lie nearer to the stored ones."""
    seen = (
        f"{_words(change, now)}: on {pictures} pictures the stem's batch-norm statistics then lie {new:.2f} standard "
        f"deviations from the stored ones, not {old:.2f}"
    )
    evidence = {"shift": old, "new_shift": new, "pictures": pictures}
    return Finding(change.code, "suspect", seen, remedy(change, now, ()), evidence)


def far(shift: float, pictures: int) -> Finding:
    """The finding that no reading brings the stem's statistics near the stored ones."""
    return Finding(
        "unlike-training",
        "suspect",
        f"on {pictures} pictures the stem's batch-norm statistics lie {shift:.2f} standard deviations from the stored "
        "ones, and no usual mean, std or order of channels brings them near",
        "look whether these pictures are like those of the training; labelled ones tell more",
        {"shift": shift, "pictures": pictures},
    )


def unknown(missing: Sequence[str], known: Sequence[str]) -> Finding:
    """The finding that the pictures have classes which the model's labels do not name."""
    return Finding(
        "labels-unknown",
        "wrong",
        f"{len(missing)} classes of the pictures are not among the model's labels: {_listed(missing)}; "
        f"among these are {_listed(known)}",
        "call folders and labels the same; the pictures of these classes were left out",
        {"classes": len(missing)},
    )


def points(gain: float, error: float) -> str:
    """A difference of two shares with its standard error: ``+2.1 ± 0.7 points``."""
    return f"{100 * gain:+.1f} ± {100 * error:.1f} points"


def _words(change: Change, now: Reading) -> str:
    """What was wrong, in words."""
    new, preprocess = change.reading, now.preprocess
    match change.code:
        case "mean-std":
            return f"mean and std are wrong: the weights fit {change.what}"
        case "channel-order":
            return f"the weights are for channels in the order {'BGR' if new.bgr else 'RGB'}"
        case "rescaled-twice":
            return f"the weights were trained on values divided by 255 {'twice' if new.twice else 'once'}"
        case "size":
            return f"{_size(new)} pixels suit better than {_size(now)}"
        case "crop":
            return f"{change.what} suits better than {_crop(now)}"
        case "interpolation":
            return f"{change.what} suits better than {preprocess.interpolation}"
        case "resampling":
            return f"{change.what} suits better than that of {WHOSE[preprocess.resampling]}"
        case "epsilon":
            return f"batch norm's ε is wrong: {new.numerics.bn_eps:g} fits, not {now.numerics.bn_eps:g}"
        case "padding":
            return f"the padding is wrong: {new.numerics.padding} fits, not {now.numerics.padding}"
        case "statistics":
            return "batch norm's statistics do not fit the weights: measured anew on these pictures they do"
        case "labels-shifted":
            where = (
                "after" if new.order[0] == (now.order[0] + 1) % (max(max(now.order), max(new.order)) + 1) else "before"
            )
            return f"the labels are shifted by one: each belongs to the output {where} its own"
        case "labels-order":
            return f"the labels are in another order than the outputs ({change.what})"
    raise AssertionError(change.code)


def remedy(change: Change, now: Reading, names: Sequence[str]) -> str:
    """What to do."""
    new = change.reading
    preprocess, numerics = new.preprocess, new.numerics
    match change.code:
        case "mean-std":
            return f"preprocess: mean {_few(preprocess.mean)}, std {_few(preprocess.std)}"
        case "channel-order":
            return "swap the first and the last input channel of the stem's convolution"
        case "rescaled-twice":
            return f"preprocess: mean and std {'255 times as large' if new.twice else '255 times smaller'}"
        case "size":
            return f"preprocess: size {preprocess.size}"
        case "crop":
            return f"preprocess: resize {preprocess.resize!r}" + (
                f", crop {preprocess.crop:.4g}" if preprocess.resize == "crop" else ""
            )
        case "interpolation" | "resampling":
            return f"preprocess: {change.code} {getattr(preprocess, change.code)!r}"
        case "epsilon":
            return f"load the weights with Numerics({numerics.padding!r}, bn_eps={numerics.bn_eps:g})"
        case "padding":
            return f"load the weights with Numerics({numerics.padding!r}, bn_eps={numerics.bn_eps:g})"
        case "statistics":
            return (
                "measure them on pictures of the training; a momentum of .99 meant TensorFlow's way is .01 in PyTorch"
            )
        case "labels-shifted":
            return f"move the labels by one: output {new.order[0]} is {names[0]!r}"
        case "labels-order":
            moved = [
                f"output {new} is {name!r}"
                for name, old, new in zip(names, now.order, new.order, strict=True)
                if old != new
            ]
            more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
            return f"reorder the labels: {', '.join(moved[:_SHOWN])}{more}"
    raise AssertionError(change.code)


def _few(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _size(reading: Reading) -> str:
    return "×".join(map(str, reading.preprocess.size))


def _crop(reading: Reading) -> str:
    return f"crop {reading.preprocess.crop:.3g}" if reading.preprocess.resize == "crop" else "squashed"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
