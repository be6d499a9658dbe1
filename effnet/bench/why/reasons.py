"""The largest reasons for which a network takes longer than its MACs promise, in words."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.bench.why.cost import BETWEEN
from effnet.bench.why.share import Share
from effnet.clock import Peaks

MOST = 3
WORTH = 0.01  # of the whole time: less lost is no reason
SHORT = 50e-6  # seconds: below this, starting a step costs about as much as the step
FAR = 1.5  # times the least that the machine's limits allow
NAMES = {
    "stem": "the stem",
    "depthwise": "depthwise convolutions",
    "fused": "fused convolutions",
    "pointwise": "1×1 convolutions",
    "squeeze-excite": "squeeze-excite",
    "activation": "activations ({activation})",
    "residual": "residual additions",
    "classifier": "pooling and classifier",
    "input": "preparing the input",
    "padding": "copies for lopsided 'same' padding, which exported files do without",
    "layout": "reordering maps in memory",
}
NOTES = {"depthwise": "since one channel after the other makes no matrix product"}


def reasons(groups: Sequence[Share], activation: str, precision: str, limits: Peaks, batch: int) -> tuple[str, ...]:
    """A sentence for each of the largest three: what takes the most time beyond its MACs at the machine's peak."""
    peak = limits.macs(precision) or limits.float32
    lost = sorted(groups, key=lambda group: group.macs / peak - group.seconds)
    steps = sum(group.steps for group in groups)
    least = WORTH * sum(group.seconds for group in groups)
    found = [group for group in lost if group.seconds - group.macs / peak >= least]
    return tuple(_sentence(group, activation, peak, batch, steps) for group in found[:MOST])


def _sentence(group: Share, activation: str, peak: float, batch: int, steps: int) -> str:
    if group.group == BETWEEN:
        each = group.seconds / max(steps - group.steps, 1)
        few = f"a batch of {batch} leaves too little work in each" if batch < 8 else "more than computing explains"
        return f"between the steps: {_percent(group.time)} of the time, {_micro(each)} for each of {steps}: {few}"
    exponential = group.group == "activation" and activation == "silu"
    name = NAMES[group.group].format(activation={"silu": "SiLU", "relu": "ReLU", "relu6": "ReLU6"}[activation])
    if not group.macs:
        why = f"{_moving(group)}{', an exponential for each value' if exponential else ''}"
        return f"{name}: {_percent(group.time)} of the time and no MACs; {why}"
    return (
        f"{name}: {_percent(group.time)} of the time for {_percent(group.work)} of the MACs; {_computing(group, peak)}"
    )


def _moving(group: Share) -> str:
    """Why steps without MACs take time."""
    if not group.bytes:
        return f"{group.steps} step{_s(group.steps)}"
    moved = f"{group.bytes / 1e6:.3g} MB are read and written in {group.steps} step{_s(group.steps)}"
    far = group.seconds / group.least
    return f"{moved}, " + (f"{far:.1f}× as long as moving them takes" if far > FAR else "as fast as the machine can")


def _computing(group: Share, peak: float) -> str:
    """What holds up steps that compute."""
    each, far, reached = group.seconds / group.steps, group.seconds / group.least, group.macs / peak / group.seconds
    told = [f"{group.intensity:.2g} MACs a byte"]
    if group.least > FAR * group.macs / peak:  # the longest part of what they must do is to move numbers
        pace = f"{far:.1f}× as long as moving the numbers takes" if far > FAR else "bound by memory"
        told.append(pace)
    else:
        told.append(f"at {_percent(reached)} of the peak of multiplication")
    if far > FAR and each < SHORT:
        told.append(f"{group.steps} short steps of {_micro(each)}")
    if far > FAR and group.group in NOTES:
        told.append(NOTES[group.group])
    return ", ".join(told)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
