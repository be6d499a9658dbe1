"""The cure: a model under the reading that the doctor found best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from effnet.data import ImageDataset
from effnet.doctor.diagnosis import Diagnosis
from effnet.doctor.examination import DEFAULT_IMAGES, sample_images
from effnet.doctor.search import apply_configuration, recompute_statistics
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.runtime.torch import select_device

BACKGROUND_LABEL = "background"


def repair_model(
    model: EfficientNet,
    diagnosis: Diagnosis,
    data: ImageDataset | str | Path | None = None,
    max_images: int = DEFAULT_IMAGES,
    seed: int = 0,
    split: str | None = None,
) -> EfficientNet:
    """A copy of ``model`` under the reading that ``diagnosis`` found best; its provenance says what was changed.

    Blue, green, red is undone in the stem's weights. Batch norm's statistics are measured anew on ``data``, chosen as
    `diagnose` chooses. Values that were divided by 255 twice are said as a mean and std 255 times as large. Raises
    ``ValueError`` where pictures would be needed and are not given.
    """
    best = diagnosis.best
    mended = apply_configuration(model, best)
    mended.load_state_dict({name: tensor.clone() for name, tensor in mended.state_dict().items()}, assign=True)
    if best.recomputed_statistics:
        if data is None:
            raise ValueError("to measure batch norm's statistics anew, give the pictures")
        recompute_statistics(
            mended, best, sample_images(mended, data, max_images, seed, split).dataset, select_device("cpu")
        )
    if best.bgr:
        stem, seen = mended.stem.conv, best.preprocess
        stem.weight = nn.Parameter(stem.weight.detach().flip(1).contiguous())
        mended.preprocess = replace(seen, mean=seen.mean[::-1], std=seen.std[::-1])
    if best.rescaled_twice:  # (x / 255 − mean) / std is (x − 255 mean) / (255 std)
        seen = mended.preprocess
        mean, std = (tuple(255 * value for value in values) for values in (seen.mean, seen.std))
        mended.preprocess = replace(seen, mean=mean, std=std)
    if best.label_order != tuple(range(len(best.label_order))):
        mended.labels = Labels(_reorder_names(diagnosis.labels, best.label_order, model.classes))
    for finding in diagnosis.findings:
        if finding.severity != "remark":
            mended.provenance = mended.provenance.with_event(f"doctor, {finding.code}: {finding.remedy}")
    return mended


def _reorder_names(names: tuple[str, ...], order: tuple[int, ...], outputs: int) -> tuple[str, ...]:
    """A name for each output; the first, where it has none, is the background."""
    of = {output: name for name, output in zip(names, order, strict=True)}
    return tuple(of.get(output, f"class {output}" if output else BACKGROUND_LABEL) for output in range(outputs))
