"""The cure: a model under the reading that the doctor found best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from effnet.contract import Labels
from effnet.data import Pictures
from effnet.doctor.choice import PICTURES, choose
from effnet.doctor.diagnosis import Diagnosis
from effnet.doctor.dress import dressed
from effnet.doctor.measure import remeasure
from effnet.net import EfficientNet
from effnet.net.device import pick

BACKGROUND = "background"


def mend(
    model: EfficientNet,
    diagnosis: Diagnosis,
    data: Pictures | str | Path | None = None,
    pictures: int = PICTURES,
    seed: int = 0,
    split: str | None = None,
) -> EfficientNet:
    """A copy of ``model`` under the reading that ``diagnosis`` found best; its provenance says what was changed.

    Blue, green, red is undone in the stem's weights. Batch norm's statistics are measured anew on ``data``, chosen as
    `diagnose` chooses. Values that were divided by 255 twice are said as a mean and std 255 times as large. Raises
    ``ValueError`` where pictures would be needed and are not given.
    """
    best = diagnosis.best
    mended = dressed(model, best)
    mended.load_state_dict({name: tensor.clone() for name, tensor in mended.state_dict().items()}, assign=True)
    if best.remeasured:
        if data is None:
            raise ValueError("to measure batch norm's statistics anew, give the pictures")
        remeasure(mended, best, choose(mended, data, pictures, seed, split).pictures, pick("cpu"))
    if best.bgr:
        stem, seen = mended.stem.conv, best.preprocess
        stem.weight = nn.Parameter(stem.weight.detach().flip(1).contiguous())
        mended.preprocess = replace(seen, mean=seen.mean[::-1], std=seen.std[::-1])
    if best.twice:  # (x / 255 − mean) / std is (x − 255 mean) / (255 std)
        seen = mended.preprocess
        mean, std = (tuple(255 * value for value in values) for values in (seen.mean, seen.std))
        mended.preprocess = replace(seen, mean=mean, std=std)
    if best.order != tuple(range(len(best.order))):
        mended.labels = Labels(_reordered(diagnosis.labels, best.order, model.classes))
    for finding in diagnosis.findings:
        if finding.severity != "remark":
            mended.provenance = mended.provenance.then(f"doctor, {finding.code}: {finding.remedy}")
    return mended


def _reordered(names: tuple[str, ...], order: tuple[int, ...], outputs: int) -> tuple[str, ...]:
    """A name for each output; the first, where it has none, is the background."""
    of = {output: name for name, output in zip(names, order, strict=True)}
    return tuple(of.get(output, f"class {output}" if output else BACKGROUND) for output in range(outputs))
