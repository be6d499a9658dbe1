"""From a file to a network, with everything that the file says and nothing assumed in silence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from effnet.arch import Arch, resolve_arch
from effnet.metadata import Labels, ModelMetadata, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet
from effnet.net.surgery import set_classes
from effnet.weights import formats
from effnet.weights.catalog import CatalogEntry, class_labels
from effnet.weights.conversion import Tensors, convert, key_map, read_sizes
from effnet.weights.detect import Detection, detect_layouts
from effnet.weights.formats.checkpoint import Checkpoint
from effnet.weights.formats.safetensors import METADATA_KEY
from effnet.weights.key_maps import LAYOUTS
from effnet.weights.resolve import resolve_weights

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class LoadedWeights:
    """A file as a network's contract and tensors, and what had to be assumed or done for that, in words."""

    arch: Arch
    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    provenance: Provenance
    tensors: Tensors  # under our names
    notes: tuple[str, ...] = ()


def load(
    source: str | Path,
    layout: str | None = None,
    arch: str | Arch | None = None,
    numerics: Numerics | None = None,
    classes: int | None = None,
    preprocess: Preprocess | None = None,
) -> EfficientNet:
    """The network that ``source`` means, in evaluation mode.

    ``source`` is a file of any ecosystem, a run's folder, a card of the catalogue ("b0/ra_in1k"), an arch ("b0": its
    default card), a Hugging Face repository or an address; what is not there yet is downloaded.
    Layout and arch are recognised from names and shapes. What neither file nor card says (padding, ε, preprocessing) is
    assumed from layout and arch, logged, and can be overridden. With ``classes``, a head of another number is replaced
    by a fresh one, and logged; without a head in the file, ``classes=None`` gives a network without a classifier.
    Raises ``ValueError`` where the file cannot be opened as a network: every missing, extra and misshapen tensor in one
    message, or the two readings between which it cannot decide; ``FileNotFoundError`` where there is no file;
    ``OSError`` where it cannot be downloaded.
    """
    located = resolve_weights(source)
    found = read_weights(located.path, layout, arch, numerics, preprocess, located.entry)
    name = located.entry.name if located.entry else located.path.name
    for remark in found.notes:
        log.warning("%s: %s", name, remark)
    model = build_network(found)
    if classes is not None and classes != model.classes:
        had = f"its head of {model.classes} classes is replaced by" if model.classes else "it has no head: it gets"
        log.warning("%s: %s a new one of %d", name, had, classes)
        set_classes(model, classes)
    return model


def build_network(weights: LoadedWeights) -> EfficientNet:
    """The network whose weights *are* ``found.tensors``, in evaluation mode."""
    classes, channels = read_sizes(weights.tensors, weights.arch, "effnet")
    with torch.device("meta"):  # no memory, and no random numbers that nobody would see
        model = EfficientNet(
            weights.arch, classes, channels, weights.numerics, weights.preprocess, weights.labels, weights.provenance
        )
    tensors = {name: tensor.to(torch.float32) for name, tensor in weights.tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
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
    entry: CatalogEntry | None = None,
) -> LoadedWeights:
    """What is in the file ``path``, within what the caller or its ``card`` says of it. Raises as `load` does."""
    content = formats.read_checkpoint(path)
    wanted = None if arch is None else resolve_arch(arch)
    if METADATA_KEY in content.header:
        found = _read_own_file(path, content, wanted, numerics)
    elif entry:
        found = _read_catalog_file(path, content, entry)
    else:
        found = _read_foreign_file(path, content, layout, wanted, numerics, preprocess)
    return replace(
        found,
        numerics=numerics or found.numerics,
        preprocess=preprocess or found.preprocess,
        notes=(*content.notes, *found.notes, *check_values(found.tensors)),
    )


def _read_own_file(
    path: Path, content: Checkpoint, arch: Arch | None, given_numerics: Numerics | None
) -> LoadedWeights:
    try:
        said = ModelMetadata.from_json(content.header[METADATA_KEY])
    except ValueError as error:
        raise ValueError(f"{path}: its header cannot be read ({error})") from None
    own, numerics = said.arch, said.numerics
    if arch is not None and arch != own:
        raise ValueError(f"{path} holds {own.name}, not {arch.name}")
    tensors = convert(content.tensors, own, content.layout or "effnet", "effnet", given_numerics or numerics)
    return LoadedWeights(own, numerics, said.preprocess, said.labels, said.provenance, tensors)


def _read_catalog_file(path: Path, content: Checkpoint, entry: CatalogEntry) -> LoadedWeights:
    arch = resolve_arch(entry.arch)
    found = _detect_one(path, content.tensors, entry.layout, arch)
    at = f" at {entry.test_size} pixels" if entry.test_size else ""
    reached = f", {entry.top1:g} % on ImageNet{at} as published" if entry.top1 else ""
    return LoadedWeights(
        arch,
        entry.numerics,
        entry.preprocess,
        class_labels(entry),
        Provenance(entry.name, entry.layout, entry.license),
        convert(found.tensors, arch, found.layout, "effnet", entry.numerics),
        (f"weights of {entry.publisher}{reached}", *found.notes),
    )


def _read_foreign_file(
    path: Path,
    content: Checkpoint,
    layout: str | None,
    arch: Arch | None,
    numerics: Numerics | None,
    preprocess: Preprocess | None,
) -> LoadedWeights:
    found = _detect_one(path, content.tensors, layout or content.layout, arch)
    kept = LAYOUTS[found.layout]
    expected = numerics or content.numerics or kept.numerics(found.arch)
    seen = preprocess or replace(kept.preprocess(found.arch), **content.preprocess)
    return LoadedWeights(
        found.arch,
        expected,
        seen,
        content.labels,
        Provenance(path.name, found.layout),
        convert(found.tensors, found.arch, found.layout, "effnet", expected),
        (*found.notes, _describe_assumptions(found, content, expected, seen, bool(numerics), bool(preprocess))),
    )


def _describe_assumptions(
    detection: Detection,
    content: Checkpoint,
    numerics: Numerics,
    preprocess: Preprocess,
    numerics_given: bool,
    preprocess_given: bool,
) -> str:
    """What was recognised, and where numerics and preprocessing come from."""
    padded = "given" if numerics_given else "stated by the file" if content.numerics else "assumed"
    seen = "given" if preprocess_given else "in part stated by the file" if content.preprocess else "assumed"
    return (
        f"{detection.arch.name} in {detection.layout}'s layout by names and shapes; "
        f"{padded}: {numerics.describe()}; "
        f"{seen}: pictures {preprocess.describe()}"
    )


def _detect_one(path: Path, tensors: Tensors, layout: str | None, arch: Arch | None) -> Detection:
    """What the tensors are, within what the caller said of them."""
    archs = () if arch is None else ([arch],)
    candidates = [found for found in detect_layouts(tensors, *archs) if layout in (None, found.layout)]
    if len(candidates) == 1:
        return candidates[0]
    if len(candidates) > 1:
        readings = " or ".join(f"{found.arch.name} in {found.layout}'s layout" for found in candidates)
        raise ValueError(f"{path} could be {readings}: say which with layout= or arch=")
    others = detect_layouts(tensors)
    if arch is not None and others:
        raise ValueError(f"{path} holds {others[0].arch.name} ({others[0].layout}'s layout), not {arch.name}")
    if arch is not None:
        likeliest = layout or _closest_layout(tensors, arch)
        convert(LAYOUTS[likeliest].clean(tensors).tensors, arch, likeliest)  # raises, listing every difference
    raise ValueError(
        f"{path}: its {len(tensors)} tensors are those of no EfficientNet known here; "
        "give arch= (and layout=) to see what differs"
    )


def _closest_layout(tensors: Tensors, arch: Arch) -> str:
    """The layout in which most names fit."""

    def fitting(layout: str) -> int:
        return len(set(key_map(layout, arch).values()) & set(LAYOUTS[layout].clean(tensors).tensors))

    return max((layout for layout in LAYOUTS if LAYOUTS[layout].supports(arch)), key=fitting)


# What should be said of the numbers themselves: precision that is not float32, values that are no numbers.


MAX_NAMED_TENSORS = 3  # tensors, before the rest is only counted


def check_values(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """In words: whether numbers are converted to float32, and which tensors hold NaN or infinity.

    Every number is read once: ask it of tensors whose shapes have been recognised, since others may be of any size.
    """
    found = []
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} - {"float32"})
    if kinds:
        found.append(f"its numbers are {' and '.join(kinds)}; they are computed with in float32")
    broken = _find_non_finite(tensors)
    if broken:
        rest = f" and {len(broken) - MAX_NAMED_TENSORS} more" if len(broken) > MAX_NAMED_TENSORS else ""
        found.append(
            f"NaN or infinite values in {', '.join(broken[:MAX_NAMED_TENSORS])}{rest}: no output of it is sound"
        )
    return tuple(found)


@torch.no_grad()
def _find_non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """A sum is finite only if all values are; where one is not, the values are looked at: large ones can overflow."""
    if not tensors:
        return []
    sums = torch.stack([tensor.float().sum() for tensor in tensors.values()])
    doubtful = [name for name, sound in zip(tensors, sums.isfinite().tolist(), strict=True) if not sound]
    return [name for name in doubtful if not tensors[name].float().isfinite().all()]
