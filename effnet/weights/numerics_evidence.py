"""What a foreign file's network computes with: padding, batch norm's ε and preprocessing, each by the best evidence.

In this order: what the caller gives; what the file states (its modules' attributes, the arguments of timm's
``train.py``); what a ``config.json`` beside it states; the hub's identifier or the URL; the file's name; what the
running statistics fit; and otherwise what the layout's official weights have, with a warning. Only timm's layout leaves
padding and ε open: the same tensors are those of ``efficientnet_b0`` (symmetric, 1e-5) and of ``tf_efficientnet_b0``
(same, 1e-3).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from effnet.arch import ARCHS, Arch, canonical_name
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.weights import conversion, key_maps, module_evidence, running_statistics
from effnet.weights.catalog import timm as timm_catalog
from effnet.weights.defaults import TENSORFLOW, TIMM_NATIVE
from effnet.weights.detect import Detection
from effnet.weights.formats import Checkpoint
from effnet.weights.formats.timm_config import numerics_of_name, read_data_config, timm_name

# timm's names of networks inside longer names. Another letter or number directly before or behind it is another name.
_NAME = re.compile(
    r"(?:^|[^a-z0-9])((?:tf_)?(?:efficientnet(?:v2)?|mobilenetv2|mnasnet|semnasnet|tinynet|mixnet|test_efficientnet)"
    r"_[a-z0-9]+(?:_[a-z0-9]+)*(?:\.[a-z0-9_]+)?)"
)
_WEIGHTS_TAG = re.compile(r"(_(ns|ap|aa|ra|in1k|in12k|in21k|in21ft1k|475))+$")  # as `canonical_name` ignores them


@dataclass(frozen=True)
class StatedName:
    """What a network is called, as its library spells it ("tf_efficientnet_b0.ns_jft_in1k"), and where that stands."""

    name: str
    where: str


@dataclass(frozen=True)
class Settled:
    """What a file's network computes with, and notes for the user on the evidence."""

    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Evidence:
    numerics: Numerics
    source: str
    warning: str = ""


def settle(
    path: Path,
    checkpoint: Checkpoint,
    found: Detection,
    numerics: Numerics | None = None,
    preprocess: Preprocess | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    asked: str = "",
) -> Settled:
    """Settle numerics and preprocessing of a detected network.

    Args:
        path: the file.
        checkpoint: what it holds and states.
        found: the network in it.
        numerics, preprocess: given by the caller, instead of any evidence.
        padding, bn_eps: given alone; the evidence decides on the other.
        asked: the hub's identifier or URL that the file was asked for by.
    """
    names = [each for each in stated_names(path, checkpoint, asked) if model_name(each.name, found.arch)]
    names = names if found.layout == "timm" else []
    stated = _stated_preprocess(checkpoint, names, found)
    prepared = preprocess or replace(key_maps.LAYOUTS[found.layout].preprocess(found.arch), **stated)
    if len(prepared.mean) != found.channels:  # grey, RGBA: the stem says so, and no default does
        prepared = prepared.with_channels(found.channels)
    if numerics is not None:
        evidence = _Evidence(numerics, "given")
    elif padding is not None and (bn_eps is not None or not _has_evidence(checkpoint, found, names)):
        usual = TENSORFLOW if padding == "same" else TIMM_NATIVE
        evidence = _Evidence(Numerics(padding, usual.bn_eps if bn_eps is None else bn_eps), "given")
    else:
        evidence = _weigh(checkpoint, found, names, prepared)
        evidence = _override(evidence, padding, bn_eps)
    read = checkpoint.preprocess or _training_arguments(checkpoint)
    how = "given" if preprocess else "partly stated by the file" if read else "assumed"
    if how != "given" and "preprocess" in checkpoint.stated_in:
        how = f"stated by {checkpoint.stated_in['preprocess']}"
    note = (
        f"{found.describe()}, detected from names and shapes; {evidence.source}: {evidence.numerics.describe()}; "
        f"{how}: images {prepared.describe()}"
    )
    warnings = (evidence.warning,) if evidence.warning else ()
    return Settled(evidence.numerics, prepared, checkpoint.labels, (note, *warnings))


def _stated_preprocess(checkpoint: Checkpoint, names: list[StatedName], found: Detection) -> dict[str, Any]:
    """Return what is stated of the images: by arguments of timm's ``train.py``, ``config.json``, a card's name."""
    stated = _card_preprocess(names[0].name, found.arch) if names else {}
    return stated | dict(checkpoint.preprocess) | _training_arguments(checkpoint)


def _training_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the fields of `effnet.Preprocess` that timm's ``train.py`` was called with."""
    arguments = {name[5:]: value for name, value in checkpoint.values.items() if name.startswith("args.")}
    return read_data_config(arguments) if "model" in arguments else {}


def _card_preprocess(name: str, arch: Arch) -> dict[str, Any]:
    """Return what timm's card says: all of it for a name with its tag; of a bare name what its cards have in common."""
    cards = {
        entry.hub.rpartition("/")[2]: entry.preprocess for entry in timm_catalog.ENTRIES if entry.arch == arch.name
    }
    tagged = [tagged for tagged in cards if name == tagged or name.startswith(f"{tagged}_")]
    if tagged:
        card = cards[max(tagged, key=len)]
        return {field.name: getattr(card, field.name) for field in fields(card)}
    model = model_name(name, arch)
    same = [preprocess for tagged, preprocess in cards.items() if tagged.partition(".")[0] == model]
    names = ("mean", "std", "interpolation", "resize")
    values = {name: {getattr(preprocess, name) for preprocess in same} for name in names}
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def override(numerics: Numerics, padding: str | None, bn_eps: float | None) -> Numerics:
    """Return ``numerics`` with the fields that are given."""
    if padding is not None:
        numerics = replace(numerics, padding=padding, fused_padding="")
    return numerics if bn_eps is None else replace(numerics, bn_eps=bn_eps)


def _override(evidence: _Evidence, padding: str | None, bn_eps: float | None) -> _Evidence:
    """Return the evidence with the part that is given; a given padding leaves nothing to warn of."""
    if padding is None and bn_eps is None:
        return evidence
    source = f"{'padding' if padding else 'ε'} given, the rest {evidence.source}"
    return _Evidence(override(evidence.numerics, padding, bn_eps), source, "" if padding else evidence.warning)


def _has_evidence(checkpoint: Checkpoint, found: Detection, names: list[StatedName]) -> bool:
    """Return whether anything but a measurement tells the numerics."""
    modules = module_evidence.read_module_evidence(checkpoint.under(found.prefix).values)
    return modules.bn_eps is not None or found.layout != "timm" or bool(names) or checkpoint.numerics is not None


def _weigh(checkpoint: Checkpoint, found: Detection, names: list[StatedName], preprocess: Preprocess) -> _Evidence:
    """Return the best evidence there is."""
    evidence = _weigh_names(checkpoint, found, names, preprocess)
    modules = module_evidence.read_module_evidence(checkpoint.under(found.prefix).values)
    if modules.bn_eps in (None, evidence.numerics.bn_eps) or checkpoint.numerics is not None:
        return evidence
    source = f"{evidence.source}, but for the ε of its modules"
    return replace(evidence, numerics=replace(evidence.numerics, bn_eps=modules.bn_eps), source=source)


def _weigh_names(
    checkpoint: Checkpoint, found: Detection, names: list[StatedName], preprocess: Preprocess
) -> _Evidence:
    layout = key_maps.LAYOUTS[found.layout]
    if checkpoint.numerics is not None and "numerics" not in checkpoint.stated_in:
        return _Evidence(checkpoint.numerics, "stated by the file")
    if found.layout == "timm" and names and names[0].where in _TRAINING_NAMES:
        return _by_name(names[0], found.arch, checkpoint)
    if checkpoint.numerics is not None:
        return _Evidence(checkpoint.numerics, f"stated by {checkpoint.stated_in['numerics']}")
    if found.layout != "timm":
        return _Evidence(layout.numerics(found.arch), "assumed")
    if names:
        return _by_name(names[0], found.arch, checkpoint)
    if found.arch.name in ARCHS and found.arch.name != "nano" and timm_name(found.arch) is None:
        return _Evidence(layout.numerics(found.arch), "assumed")  # a relative, which exists once
    return _measure(found, preprocess)


def _by_name(stated: StatedName, arch: Arch, checkpoint: Checkpoint) -> _Evidence:
    model = model_name(stated.name, arch)
    assert model is not None
    arguments = {name: checkpoint.values.get(f"args.{name}") for name in ("bn_eps", "pad_type")}
    if stated.where not in _TRAINING_NAMES:
        arguments = {}
    return _Evidence(numerics_of_name(model, arguments), f"as timm's {model}, by {stated.where}")


def _measure(found: Detection, preprocess: Preprocess) -> _Evidence:
    """Measure; and if that cannot tell, take what the official weights have, with a warning."""
    assumed = key_maps.LAYOUTS[found.layout].numerics(found.arch)
    ported, native = timm_name(found.arch, "same"), timm_name(found.arch, "symmetric")
    ours = conversion.convert(found.tensors, found.arch, found.layout, "effnet", assumed)
    fit = running_statistics.fit_numerics(ours, found.arch, preprocess)
    if fit.padding is not None:
        usual = TENSORFLOW if fit.padding == "same" else TIMM_NATIVE
        eps = usual.bn_eps if fit.bn_eps is None else fit.bn_eps
        numerics = Numerics(fit.padding, eps)
        say = f"if that is wrong, pass --padding {'symmetric' if fit.padding == 'same' else 'same'}"
        return _Evidence(numerics, f"measured, since the file does not say ({fit.describe()}; {say})")
    as_ported = f" as in timm's {ported}" if ported else ""
    as_native = f" as in {native}" if native and native != ported else ""
    return _Evidence(
        assumed,
        "assumed",
        f"WARNING: the file does not state the padding and batch-norm ε of its network, and {fit.describe()}. Assuming "
        f"{assumed.padding} padding and ε {assumed.bn_eps:g}{as_ported}. If it has symmetric padding and ε 1e-05"
        f"{as_native}, predictions are silently wrong: pass --padding symmetric --bn-eps 1e-5; --padding same confirms "
        "the assumption",
    )


# Names ---------------------------------------------------------------------------------------------------------------

_TRAINING_NAMES = {"args.model": "args.model", "arch": "arch", "hyper_parameters.model_name": "hyper_parameters"}


def stated_names(path: Path, checkpoint: Checkpoint, asked: str = "") -> list[StatedName]:
    """Return what the network is called, best evidence first.

    What the file itself states, ``config.json`` beside it, the hub's identifier or URL, the file's name, and those of
    the folders that it lies in.
    """
    return list(_iterate_names(path, checkpoint, asked))


def _iterate_names(path: Path, checkpoint: Checkpoint, asked: str) -> Iterator[StatedName]:
    for key in _TRAINING_NAMES:
        value = checkpoint.values.get(key)
        if isinstance(value, str) and (name := find_name(value)):
            yield StatedName(name, key)
    if checkpoint.arch_name:
        yield StatedName(checkpoint.arch_name, checkpoint.stated_in.get("arch_name", "the file"))
    if name := find_name(asked.rpartition("/")[2]):
        yield StatedName(name, asked)
    repository = next((part for part in path.parts if part.startswith("models--")), "")
    if name := find_name(repository.rpartition("--")[2]):
        yield StatedName(name, "the hub's identifier")
    if name := find_name(path.name.removesuffix(path.suffix)):
        yield StatedName(name, "the file's name")
    for folder in path.parts[-2:-4:-1]:
        if name := find_name(folder):
            yield StatedName(name, "its folder's name")


def find_name(text: str) -> str | None:
    """Return the part of ``text`` from where a network of timm is named: "my_efficientnet_b0.ra" → without "my_"."""
    match = _NAME.search(text.lower())
    return match[1] if match else None


def model_name(name: str, arch: Arch) -> str | None:
    """Return the model of ``arch`` that ``name`` begins with, by timm's name; None if it is another network's.

    Example:
        >>> model_name("tf_efficientnet_b0_ns_fold1", effnet.ARCHS["b0"])
        'tf_efficientnet_b0'
    """
    words = name.partition(".")[0].split("_")
    for end in range(len(words), 1, -1):
        candidate = "_".join(words[:end])
        try:
            if canonical_name(candidate) == arch.name:
                return _WEIGHTS_TAG.sub("", candidate)
        except ValueError:
            continue
    return None
