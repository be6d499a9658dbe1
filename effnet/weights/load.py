"""From a file to a network, with everything that the file says and nothing assumed in silence."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from effnet.arch import Arch, canonical, resolve
from effnet.contract import Labels, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet
from effnet.net.surgery import set_classes
from effnet.weights import formats
from effnet.weights.conversion import Tensors, convert, names, read_sizes
from effnet.weights.formats.content import Content
from effnet.weights.formats.safetensors import HEADER
from effnet.weights.layouts import LAYOUTS
from effnet.weights.recognition import Found, recognise

# What files of weights are called; anything else after a dot is a part of a name, as in tf_efficientnet_b0.ns_jft_in1k
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".tflite", ".index")

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class Contract:
    """What a network is built from, beside its tensors."""

    arch: Arch
    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    provenance: Provenance


def load(
    source: str | Path,
    layout: str | None = None,
    arch: str | Arch | None = None,
    numerics: Numerics | None = None,
    classes: int | None = None,
) -> EfficientNet:
    """The network in the file ``source`` (or in a run's folder), in evaluation mode.

    Layout and arch are recognised from names and shapes. What a file of another ecosystem cannot say (padding, ε,
    preprocessing) is taken from the official weights of that arch, logged, and can be overridden. With ``classes``, a
    head of another number is replaced by a fresh one, and logged; without a head in the file, ``classes=None`` gives
    a network without a classifier.
    Raises ``ValueError`` where the file cannot be opened as a network: every missing, extra and misshapen tensor in one
    message, or the two readings between which it cannot decide; ``FileNotFoundError`` where there is no file.
    """
    path = find(source)
    content = formats.read(path)
    if HEADER in content.header:
        contract, tensors = _own(path, content, arch, numerics)
    else:
        contract, tensors = _foreign(path, content, layout, arch, numerics)
    model = build(contract, tensors)
    if classes is not None and classes != model.classes:
        had = f"its head of {model.classes} classes is replaced by" if model.classes else "it has no head: it gets"
        log.warning("%s: %s a new one of %d", path.name, had, classes)
        set_classes(model, classes)
    return model


def build(contract: Contract, tensors: Tensors) -> EfficientNet:
    """The network of ``contract`` whose weights *are* ``tensors`` (under our names), in evaluation mode."""
    classes, channels = read_sizes(tensors, contract.arch, "effnet")
    with torch.device("meta"):  # no memory, and no random numbers that nobody would see
        model = EfficientNet(
            contract.arch,
            classes,
            channels,
            contract.numerics,
            contract.preprocess,
            contract.labels,
            contract.provenance,
        )
    tensors = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    for name in missing:
        model.get_submodule(name.rpartition(".")[0]).register_buffer("num_batches_tracked", torch.tensor(0))
    return model.eval()


def find(source: str | Path) -> Path:
    """The file that ``source`` means. Raises ``FileNotFoundError``, or for a mere name ``ValueError`` with a way on."""
    path = Path(source)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or len(path.parts) > 1 or path.exists():
        raise FileNotFoundError(f"{source}: there is no such file of weights")
    raise ValueError(
        f"{canonical(str(source))}: published weights are not downloaded by this version; give a file of weights "
        "(to train: --weights FILE, or --weights none to start from random ones)"
    )


def _own(path: Path, content: Content, arch: str | Arch | None, numerics: Numerics | None) -> tuple[Contract, Tensors]:
    try:
        said = json.loads(content.header[HEADER])
        contract = Contract(
            Arch.from_dict(said["arch"]),
            numerics or Numerics.from_dict(said["numerics"]),
            Preprocess.from_dict(said["preprocess"]),
            Labels.from_dict(said["labels"]),
            Provenance.from_dict(said["provenance"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: its header cannot be read ({error})") from None
    if arch is not None and resolve(arch) != contract.arch:
        raise ValueError(f"{path} holds {contract.arch.name}, not {resolve(arch).name}")
    return contract, convert(content.tensors, contract.arch, "effnet", "effnet")


def _foreign(
    path: Path, content: Content, layout: str | None, arch: str | Arch | None, numerics: Numerics | None
) -> tuple[Contract, Tensors]:
    found = _recognised(path, content.tensors, layout or content.layout, None if arch is None else resolve(arch))
    for remark in (*content.remarks, *found.remarks):
        log.warning("%s: %s", path.name, remark)
    kept = LAYOUTS[found.layout]
    expected = numerics or content.numerics or kept.numerics(found.arch)
    preprocess = replace(kept.preprocess(found.arch), **content.preprocess)
    log.warning(
        "%s: %s in %s's layout by names and shapes; %s %s padding, batch-norm ε %g, preprocessing of the official %s",
        path.name,
        found.arch.name,
        found.layout,
        "given" if numerics else "assumed",
        expected.padding,
        expected.bn_eps,
        found.arch.name,
    )
    contract = Contract(found.arch, expected, preprocess, content.labels, Provenance(path.name, found.layout))
    return contract, convert(found.tensors, found.arch, found.layout, "effnet", expected)


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
    return max(
        LAYOUTS, key=lambda layout: len(set(names(layout, arch).values()) & set(LAYOUTS[layout].tidy(given).tensors))
    )
