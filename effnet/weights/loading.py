"""Loading a network from a file of any ecosystem. What has to be assumed about the file is logged."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from effnet.arch import ARCHS, Arch, resolve_arch, serde
from effnet.arch.outsiders import explain_outside
from effnet.metadata import TASKS, ModelMetadata, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet, surgery
from effnet.weights import (
    catalog,
    class_labels,
    conversion,
    detect,
    formats,
    key_maps,
    module_evidence,
    numerics_evidence,
    resolve,
)
from effnet.weights.formats import METADATA_KEY, Checkpoint

log = logging.getLogger("effnet")

_TIMM_STEM = "conv_stem.weight"


@dataclass(frozen=True)
class LoadedWeights:
    """A file's tensors under our names, their metadata, and notes for the user on what was assumed or done."""

    metadata: ModelMetadata
    tensors: conversion.Tensors
    notes: tuple[str, ...] = ()


def load(
    source: str | Path,
    layout: str | None = None,
    arch: str | Arch | None = None,
    numerics: Numerics | None = None,
    classes: int | None = None,
    preprocess: Preprocess | None = None,
    prefix: str | None = None,
    head: str | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    task: str | None = None,
) -> EfficientNet:
    """Load a network, in evaluation mode.

    Layout and architecture are detected from names and shapes, under any prefix and beside any other tensors. The one
    linear layer that follows becomes the classifier, with batch norm around it folded; after another head the network
    opens without a classifier. Padding, ε and preprocessing that neither the file nor the catalog states are assumed.
    What was taken, left aside and assumed is logged and can be overridden.

    Args:
        source: a file of any ecosystem, a run's folder, a name of the catalog ("b0/ra_in1k"), an arch ("b0": its
            default weights), a Hugging Face repository or a URL. What is not on disk is downloaded.
        layout: how the file names its tensors ("timm", "keras", …), if it could be several.
        arch: the architecture, if it could be several, or to see how the file differs from it.
        numerics: padding and batch norm's ε, instead of what the file states or what is assumed.
        classes: replace a head of another size by a new, random one. None: keep the head; a file without one gives a
            network without a classifier.
        preprocess: instead of what the file states or what is assumed.
        prefix: which of several networks in the file, by what precedes its tensors' names ("student").
        head: which linear layer is the classifier, if it could be several.
        padding, bn_eps: one field of ``numerics``; the other one stays as stated, measured or assumed.
        task: "classification", "multilabel" or "regression": what the outputs are, instead of what the file states. A
            file that states nothing is for classification, and a single output then stands for two classes.

    Raises:
        ValueError: if the file contains no such network: with the nearest one and what differs from it, or with the
            networks between which it cannot decide.
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be downloaded.

    Example:
        >>> model = effnet.load("b0/ra_in1k", classes=10)
    """
    found = resolve.resolve_weights(source)
    given = (layout, arch, numerics, preprocess, found.entry, prefix, head, padding, bn_eps)
    weights = read_weights(found.path, *given, asked=found.asked, task=task)
    name = found.entry.name if found.entry else found.path.name
    for note in weights.notes:
        log.warning("%s: %s", name, note)
    model = build_network(weights.metadata, weights.tensors)
    if classes is not None and classes != model.classes:
        before = f"its head of {model.classes} classes is replaced by" if model.classes else "it has no head and gets"
        log.warning("%s: %s a new one of %d", name, before, classes)
        surgery.set_classes(model, classes)
    return model


def build_network(metadata: ModelMetadata, tensors: conversion.Tensors) -> EfficientNet:
    """Return the network with these tensors as its weights (not copied if they are float32), in evaluation mode."""
    classes, channels = conversion.read_sizes(tensors, metadata.arch, "effnet")
    stated = metadata.numerics, metadata.preprocess, metadata.labels, metadata.provenance
    with torch.device("meta"):  # allocate nothing and draw no random numbers
        model = EfficientNet(metadata.arch, classes, channels, *stated)
    state = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    for name in missing:
        model.get_submodule(name.rpartition(".")[0]).register_buffer("num_batches_tracked", torch.tensor(0))
    return model.eval()


def read_weights(
    path: Path,
    layout: str | None = None,
    arch: str | Arch | None = None,
    numerics: Numerics | None = None,
    preprocess: Preprocess | None = None,
    entry: catalog.CatalogEntry | None = None,
    prefix: str | None = None,
    head: str | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    asked: str = "",
    task: str | None = None,
) -> LoadedWeights:
    """Read a file's tensors and metadata; arguments and errors are those of `load`.

    ``asked`` is the hub's identifier or the URL by which the file was asked for.
    """
    if task is not None:
        serde.check_choice("task", task, TASKS)
    checkpoint = formats.read_checkpoint(path)
    wanted = None if arch is None else resolve_arch(arch)
    if METADATA_KEY in checkpoint.header:
        if prefix or head:
            option = f"--prefix {prefix}" if prefix else f"--head {head}"
            raise ValueError(f"{path} was written by effnet and contains one network: omit {option}")
        found = _read_own_file(path, checkpoint, wanted, numerics)
    elif entry:
        found = _read_catalog_file(path, checkpoint, entry, head)
    else:
        checkpoint = replace(checkpoint, layout=layout or checkpoint.layout)
        evidence = partial(
            numerics_evidence.settle,
            path,
            numerics=numerics,
            preprocess=preprocess,
            padding=padding,
            bn_eps=bn_eps,
            asked=asked,
        )
        found = _read_foreign_file(path, checkpoint, wanted, evidence, prefix, head, task)
    numerics, preprocess = numerics or found.metadata.numerics, preprocess or found.metadata.preprocess
    numerics = numerics_evidence.override(numerics, padding, bn_eps)
    labels = found.metadata.labels if task is None else replace(found.metadata.labels, task=task)
    metadata = replace(found.metadata, numerics=numerics, preprocess=preprocess, labels=labels)
    return LoadedWeights(metadata, found.tensors, (*checkpoint.notes, *found.notes, *check_values(found.tensors)))


def _read_own_file(path: Path, checkpoint: Checkpoint, arch: Arch | None, numerics: Numerics | None) -> LoadedWeights:
    try:
        metadata = ModelMetadata.from_json(checkpoint.header[METADATA_KEY])
    except ValueError as error:
        raise ValueError(f"{path}: its header cannot be read ({error})") from None
    if arch is not None and arch != metadata.arch:
        raise ValueError(f"{path} contains {metadata.arch.name}, not {arch.name}")
    layout = checkpoint.layout or "effnet"
    tensors = conversion.convert(checkpoint.tensors, metadata.arch, layout, "effnet", numerics or metadata.numerics)
    return LoadedWeights(metadata, tensors)


def _read_catalog_file(
    path: Path, checkpoint: Checkpoint, entry: catalog.CatalogEntry, head: str | None
) -> LoadedWeights:
    arch = resolve_arch(entry.arch)
    found = _detect_one(path, checkpoint, arch, None, head)
    size = f" at {entry.test_size} pixels" if entry.test_size else ""
    accuracy = f", published with {entry.top1:g} % top-1 on ImageNet{size}" if entry.top1 else ""
    source = f", installed as the package {entry.package}" if entry.package else ""
    provenance = Provenance(entry.name, entry.layout, entry.license)
    return LoadedWeights(
        ModelMetadata(arch, entry.numerics, entry.preprocess, catalog.entry.class_labels(entry), provenance),
        conversion.convert(found.tensors, arch, found.layout, "effnet", entry.numerics),
        (f"weights of {entry.publisher}{accuracy}{source}", *found.notes),
    )


def _read_foreign_file(
    path: Path,
    checkpoint: Checkpoint,
    arch: Arch | None,
    settle: Callable[..., numerics_evidence.Settled],
    prefix: str | None,
    head: str | None,
    task: str | None,
) -> LoadedWeights:
    found = _detect_one(path, checkpoint, arch, prefix, head)
    checkpoint = _add_normalization(module_evidence.add_statements(checkpoint, found), found)
    settled = settle(checkpoint=checkpoint, found=found)
    converted = conversion.convert(found.tensors, found.arch, found.layout, "effnet", settled.numerics)
    tensors, labels, label_notes = class_labels.complete_labels(converted, settled.labels, task)
    provenance = Provenance(path.name, found.layout)
    return LoadedWeights(
        ModelMetadata(found.arch, settled.numerics, settled.preprocess, labels, provenance),
        tensors,
        (*found.notes, *settled.notes, *label_notes),
    )


def _detect_one(
    path: Path, checkpoint: Checkpoint, arch: Arch | None, prefix: str | None, head: str | None
) -> detect.Detection:
    """Return the only network that fits and that the caller allows. Raises ``ValueError`` otherwise."""
    tensors, layout = checkpoint.tensors, checkpoint.layout
    archs = ARCHS.values() if arch is None else [arch]
    layouts = tuple(key_maps.LAYOUTS) if layout is None else (layout,)
    try:
        candidates = detect.detect_layouts(tensors, archs, layouts, head, checkpoint.values)
        if candidates and prefix is not None:
            candidates = detect.filter_by_prefix(candidates, prefix)
        if candidates:
            found = detect.choose(candidates)
            _require_family(path, checkpoint)
            _require_plain(found)
            _require_arithmetic(found, checkpoint)
            return found
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if outside := _explain_tensors(tensors):
        raise ValueError(f"{path}: {outside}")
    others = detect.detect_layouts(tensors) if arch or layout else []
    if others:
        wanted = arch.name if arch else f"{layout}'s"
        raise ValueError(f"{path} contains {others[0].arch.name} ({others[0].layout}'s layout), not {wanted}")
    raise ValueError(f"{path}: {detect.describe_nearest(tensors, archs, layouts)}")


def _require_family(path: Path, checkpoint: Checkpoint) -> None:
    """Raise ``ValueError`` if a name says that it is a network outside the family: its tensors may be those of one."""
    values = checkpoint.values
    for name in (checkpoint.arch_name, values.get("arch"), values.get("args.model"), path.name):
        if isinstance(name, str) and (outside := explain_outside(name)):
            raise ValueError(outside)


def _explain_tensors(tensors: conversion.Tensors) -> str | None:
    """Say which network of timm's outside the family ``tensors`` are of, under any prefix."""
    roots = [name.removesuffix(_TIMM_STEM) for name in tensors if name.endswith(_TIMM_STEM)]
    for root in roots:
        shapes = {n.removeprefix(root): tuple(tensor.shape) for n, tensor in tensors.items() if n.startswith(root)}
        if outside := explain_outside(tensors=shapes):
            return outside
    return None


def _add_normalization(checkpoint: Checkpoint, found: detect.Detection) -> Checkpoint:
    """Return the checkpoint with the mean and std that a module of the file normalizes images with, if it has one.

    Such a module takes images of 0 … 1, or of 0 … 255; two that differ state nothing.
    """
    stated = set()
    for name, mean in checkpoint.tensors.items():
        std = checkpoint.tensors.get(f"{name.removesuffix('mean')}std") if name.endswith("mean") else None
        if std is None or mean.is_meta or std.is_meta or not mean.is_floating_point():
            continue
        of_images = mean.ndim >= 3 or re.search(r"norm|pixel|image|rgb", name, re.I)  # not of a regression's targets
        if of_images and mean.numel() == std.numel() == found.channels:
            pair = tuple(tuple(value.double().flatten().tolist()) for value in (mean, std))
            scale = 255.0 if max(pair[0]) > 2 else 1.0
            stated.add(tuple(tuple(float(f"{value / scale:.7g}") for value in values) for values in pair))
    if len(stated) != 1 or any(value <= 0 for value in next(iter(stated))[1]):
        return checkpoint
    values = dict(zip(("mean", "std"), stated.pop(), strict=True))
    return replace(checkpoint, preprocess=values | dict(checkpoint.preprocess))


def _require_plain(found: detect.Detection) -> None:
    for name, tensor in found.tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout is not torch.strided:
            theirs = found.names.get(name, name)
            raise ValueError(f"{theirs} is quantized, sparse, complex or empty, not a plain array of numbers")


def _require_arithmetic(found: detect.Detection, checkpoint: Checkpoint) -> None:
    """Raise ``ValueError`` if the file's modules compute otherwise than the network whose tensors they have."""
    values = checkpoint.under(found.prefix).values
    if differences := module_evidence.find_differences(values, found.arch, found.layout):
        name = values.get("pretrained_cfg.architecture") or values.get("default_cfg.architecture")
        what = f"this is {name}: its" if isinstance(name, str) else "its"
        more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
        raise ValueError(f"{what} tensors are those of {found.describe()}, but {differences[0]}{more}")


def check_values(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Return notes for the user if weights are converted to float32, and on tensors that contain NaN or infinity.

    Every value is read once: only call it for tensors whose shapes are known, since others may be of any size.
    """
    notes = []
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} - {"float32"})
    if dtypes:
        notes.append(f"weights are {' and '.join(dtypes)}; computing in float32")
    broken = _find_non_finite(tensors)
    if broken:
        rest = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        notes.append(f"NaN or infinite values in {', '.join(broken[:3])}{rest}: its outputs are meaningless")
    return tuple(notes)


@torch.no_grad()
def _find_non_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Sum each tensor, which is fast, and look at the values only if the sum is not finite: large ones may overflow."""
    if not tensors:
        return []
    sums = torch.stack([tensor.float().sum() for tensor in tensors.values()])
    suspects = [name for name, finite in zip(tensors, sums.isfinite().tolist(), strict=True) if not finite]
    return [name for name in suspects if not tensors[name].float().isfinite().all()]
