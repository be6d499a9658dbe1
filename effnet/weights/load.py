"""From a file to a network, with everything that the file says and nothing assumed in silence."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from effnet.arch import Arch, resolve
from effnet.contract import Contract, Labels, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet
from effnet.net.surgery import set_classes
from effnet.weights import formats, soundness
from effnet.weights.cards import Card, labels
from effnet.weights.conversion import Tensors, convert, names, read_sizes
from effnet.weights.find import find
from effnet.weights.formats.content import Content
from effnet.weights.formats.safetensors import HEADER
from effnet.weights.layouts import LAYOUTS
from effnet.weights.recognition import Found, recognise

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class Opened:
    """A file as a network's contract and tensors, and what had to be assumed or done for that, in words."""

    arch: Arch
    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    provenance: Provenance
    tensors: Tensors  # under our names
    remarks: tuple[str, ...] = ()


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
    located = find(source)
    found = opened(located.path, layout, arch, numerics, preprocess, located.card)
    name = located.card.name if located.card else located.path.name
    for remark in found.remarks:
        log.warning("%s: %s", name, remark)
    model = build(found)
    if classes is not None and classes != model.classes:
        had = f"its head of {model.classes} classes is replaced by" if model.classes else "it has no head: it gets"
        log.warning("%s: %s a new one of %d", name, had, classes)
        set_classes(model, classes)
    return model


def build(found: Opened) -> EfficientNet:
    """The network whose weights *are* ``found.tensors``, in evaluation mode."""
    classes, channels = read_sizes(found.tensors, found.arch, "effnet")
    with torch.device("meta"):  # no memory, and no random numbers that nobody would see
        model = EfficientNet(
            found.arch, classes, channels, found.numerics, found.preprocess, found.labels, found.provenance
        )
    tensors = {name: tensor.to(torch.float32) for name, tensor in found.tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    for name in missing:
        model.get_submodule(name.rpartition(".")[0]).register_buffer("num_batches_tracked", torch.tensor(0))
    return model.eval()


def opened(
    path: Path,
    layout: str | None = None,
    arch: str | Arch | None = None,
    numerics: Numerics | None = None,
    preprocess: Preprocess | None = None,
    card: Card | None = None,
) -> Opened:
    """What is in the file ``path``, within what the caller or its ``card`` says of it. Raises as `load` does."""
    content = formats.read(path)
    wanted = None if arch is None else resolve(arch)
    if HEADER in content.header:
        found = _own(path, content, wanted, numerics)
    elif card:
        found = _carded(path, content, card)
    else:
        found = _foreign(path, content, layout, wanted, numerics, preprocess)
    return replace(
        found,
        numerics=numerics or found.numerics,
        preprocess=preprocess or found.preprocess,
        remarks=(*content.remarks, *found.remarks, *soundness.remarks(found.tensors)),
    )


def _own(path: Path, content: Content, arch: Arch | None, given: Numerics | None) -> Opened:
    try:
        said = Contract.from_json(content.header[HEADER])
    except ValueError as error:
        raise ValueError(f"{path}: its header cannot be read ({error})") from None
    own, numerics = said.arch, said.numerics
    if arch is not None and arch != own:
        raise ValueError(f"{path} holds {own.name}, not {arch.name}")
    tensors = convert(content.tensors, own, content.layout or "effnet", "effnet", given or numerics)
    return Opened(own, numerics, said.preprocess, said.labels, said.provenance, tensors)


def _carded(path: Path, content: Content, card: Card) -> Opened:
    arch = resolve(card.arch)
    found = _recognised(path, content.tensors, card.layout, arch)
    at = f" at {card.tested_at} pixels" if card.tested_at else ""
    reached = f", {card.top1:g} % on ImageNet{at} as published" if card.top1 else ""
    return Opened(
        arch,
        card.numerics,
        card.preprocess,
        labels(card),
        Provenance(card.name, card.layout, card.licence),
        convert(found.tensors, arch, found.layout, "effnet", card.numerics),
        (f"weights of {card.publisher}{reached}", *found.remarks),
    )


def _foreign(
    path: Path,
    content: Content,
    layout: str | None,
    arch: Arch | None,
    numerics: Numerics | None,
    preprocess: Preprocess | None,
) -> Opened:
    found = _recognised(path, content.tensors, layout or content.layout, arch)
    kept = LAYOUTS[found.layout]
    expected = numerics or content.numerics or kept.numerics(found.arch)
    seen = preprocess or replace(kept.preprocess(found.arch), **content.preprocess)
    return Opened(
        found.arch,
        expected,
        seen,
        content.labels,
        Provenance(path.name, found.layout),
        convert(found.tensors, found.arch, found.layout, "effnet", expected),
        (*found.remarks, _assumptions(found, content, expected, seen, bool(numerics), bool(preprocess))),
    )


def _assumptions(
    found: Found, content: Content, numerics: Numerics, preprocess: Preprocess, numerics_given: bool, seen_given: bool
) -> str:
    """What was recognised, and where numerics and preprocessing come from."""
    padded = "given" if numerics_given else "stated by the file" if content.numerics else "assumed"
    seen = "given" if seen_given else "in part stated by the file" if content.preprocess else "assumed"
    return (
        f"{found.arch.name} in {found.layout}'s layout by names and shapes; "
        f"{padded}: {numerics.in_words()}; "
        f"{seen}: pictures {preprocess.in_words()}"
    )


def _recognised(path: Path, given: Tensors, layout: str | None, arch: Arch | None) -> Found:
    """What the tensors are, within what the caller said of them."""
    archs = () if arch is None else ([arch],)
    candidates = [found for found in recognise(given, *archs) if layout in (None, found.layout)]
    if len(candidates) == 1:
        return candidates[0]
    if len(candidates) > 1:
        readings = " or ".join(f"{found.arch.name} in {found.layout}'s layout" for found in candidates)
        raise ValueError(f"{path} could be {readings}: say which with layout= or arch=")
    others = recognise(given)
    if arch is not None and others:
        raise ValueError(f"{path} holds {others[0].arch.name} ({others[0].layout}'s layout), not {arch.name}")
    if arch is not None:
        likeliest = layout or _likeliest(given, arch)
        convert(LAYOUTS[likeliest].tidy(given).tensors, arch, likeliest)  # raises, listing every difference
    raise ValueError(
        f"{path}: its {len(given)} tensors are those of no EfficientNet known here; "
        "give arch= (and layout=) to see what differs"
    )


def _likeliest(given: Tensors, arch: Arch) -> str:
    """The layout in which most names fit."""

    def fitting(layout: str) -> int:
        return len(set(names(layout, arch).values()) & set(LAYOUTS[layout].tidy(given).tensors))

    return max((layout for layout in LAYOUTS if LAYOUTS[layout].has(arch)), key=fitting)
