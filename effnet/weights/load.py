"""From a file to a network, with everything that the file says and nothing assumed in silence."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from effnet.arch import Arch, canonical, resolve
from effnet.contract import Labels, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet
from effnet.net.surgery import set_classes
from effnet.weights import official, readers
from effnet.weights.layout import LAYOUTS, Found, convert, names, read_sizes, recognise
from effnet.weights.save import HEADER

# What files of weights are called; anything else after a dot is a part of a name, as in tf_efficientnet_b0.ns_jft_in1k
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".keras", ".tflite")

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class _Contract:
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
    given, header = readers.read(path)
    if HEADER in header:
        contract, converted = _own(path, given, header[HEADER], arch, numerics)
    else:
        contract, converted = _foreign(path, given, layout, arch, numerics)
    found = read_sizes(converted, contract.arch, "effnet")
    model = EfficientNet(
        contract.arch,
        found.classes,
        found.channels,
        contract.numerics,
        contract.preprocess,
        contract.labels,
        contract.provenance,
    )
    missing, unexpected = model.load_state_dict(converted, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    if classes is not None and classes != found.classes:
        had = f"its head of {found.classes} classes is replaced by" if found.classes else "it has no head: it gets"
        log.warning("%s: %s a new one of %d", path.name, had, classes)
        set_classes(model, classes)
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


def _own(
    path: Path, given: dict[str, Tensor], header: str, arch: str | Arch | None, numerics: Numerics | None
) -> tuple[_Contract, dict[str, Tensor]]:
    try:
        said = json.loads(header)
        contract = _Contract(
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
    return contract, convert(given, contract.arch, "effnet", "effnet")


def _foreign(
    path: Path, given: dict[str, Tensor], layout: str | None, arch: str | Arch | None, numerics: Numerics | None
) -> tuple[_Contract, dict[str, Tensor]]:
    found = _recognised(path, given, layout, None if arch is None else resolve(arch))
    expected, preprocess = numerics or official.numerics(found.arch), official.preprocess(found.arch)
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
    contract = _Contract(found.arch, expected, preprocess, Labels(), Provenance(path.name, found.layout))
    return contract, convert(given, found.arch, found.layout, "effnet")


def _recognised(path: Path, given: dict[str, Tensor], layout: str | None, arch: Arch | None) -> Found:
    """What the tensors are, within what the caller said of them."""
    candidates = recognise(given) if arch is None else recognise(given, [arch])
    candidates = [found for found in candidates if layout in (None, found.layout)]
    if len(candidates) == 1:
        return candidates[0]
    if len(candidates) > 1:
        readings = " or ".join(f"{found.arch.name} in {found.layout}'s layout" for found in candidates)
        raise ValueError(f"{path} could be {readings}: say which with layout= or arch=")
    others = recognise(given)
    if arch is not None and others:
        raise ValueError(f"{path} holds {others[0].arch.name} ({others[0].layout}'s layout), not {arch.name}")
    if arch is not None:
        convert(given, arch, layout or _likeliest(given, arch))  # raises, listing every difference
    raise ValueError(
        f"{path}: its {len(given)} tensors are those of no EfficientNet known here; "
        "give arch= (and layout=) to see what differs"
    )


def _likeliest(given: dict[str, Tensor], arch: Arch) -> str:
    """The layout in which most names fit."""
    return max(LAYOUTS, key=lambda layout: len(set(names(layout, arch).values()) & set(given)))
