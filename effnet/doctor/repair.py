"""Repairing a model: applying the configuration that the doctor found best."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from effnet.data import ImageDataset
from effnet.doctor import examination, search
from effnet.doctor.diagnosis import Diagnosis
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.runtime.torch import select_device


def repair_model(
    model: EfficientNet,
    diagnosis: Diagnosis,
    data: ImageDataset | str | Path | None = None,
    max_images: int = examination.DEFAULT_IMAGES,
    seed: int = 0,
    split: str | None = None,
) -> EfficientNet:
    """Return a copy of the model under ``diagnosis.best``; its provenance says what was changed.

    BGR is undone in the stem's weights. Values that were divided by 255 twice become a mean and std 255 times as large.
    ``data`` is only needed to recompute batch-norm statistics, and sampled as `diagnose` does.
    """
    best = diagnosis.best
    repaired = search.apply_configuration(model, best)
    repaired.load_state_dict({name: tensor.clone() for name, tensor in repaired.state_dict().items()}, assign=True)
    if best.recomputed_statistics:
        if data is None:
            raise ValueError("batch-norm statistics have to be recomputed: pass the images")
        sample = examination.sample_images(repaired, data, max_images, seed, split)
        search.recompute_statistics(repaired, best, sample.dataset, select_device("cpu"))
    preprocess = best.preprocess
    if best.bgr:
        stem = repaired.stem.conv
        stem.weight = nn.Parameter(stem.weight.detach().flip(1).contiguous())
        preprocess = replace(preprocess, mean=preprocess.mean[::-1], std=preprocess.std[::-1])
    if best.rescaled_twice:  # (x / 255 − mean) / std is (x − 255 mean) / (255 std)
        mean, std = (tuple(255 * value for value in values) for values in (preprocess.mean, preprocess.std))
        preprocess = replace(preprocess, mean=mean, std=std)
    repaired.preprocess = preprocess
    if best.label_order != tuple(range(len(best.label_order))):
        name_of = dict(zip(best.label_order, diagnosis.labels, strict=True))
        # The first output, if it has no name, is the background
        names = (name_of.get(i, f"class {i}" if i else "background") for i in range(model.classes))
        repaired.labels = Labels(tuple(names))
    for finding in diagnosis.findings:
        if finding.severity != "remark":
            repaired.provenance = repaired.provenance.with_event(f"doctor, {finding.code}: {finding.remedy}")
    return repaired
