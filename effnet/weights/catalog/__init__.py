"""The catalog of published weights, as data.

An entry is named "ARCH/TAG", where TAG is what its publisher calls the weights:

- timm: its tag, after ``tf_`` for Google's ported weights: "b0/ra_in1k", "b0/tf_aa_in1k";
- torchvision: "b1/torchvision_v2"; lukemelas: "b0/lukemelas", "b0/lukemelas_advprop"; Keras: "b0/keras",
  "b0/keras_notop" (no classifier);
- Google: "b0/google" and, by how they were trained, "b0/google_aa" (AutoAugment), "_ra" (RandAugment), "_ap"
  (AdvProp), "_ns" (Noisy Student), "v2_s/google_in21k", "_in21k_ft"; TFLite's "lite0/google_int8", "_float32";
- installed as a package: "lite0/ml_illustrated".

An arch's name alone stands for its default entry: of timm's with ImageNet-1k's classes (one file each in an open
format, under a permissive license) those tested at the arch's own resolution, or any if there are none, as for Lite3
and Lite4; of these the one with the best published top-1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from effnet.arch import ARCHS, canonical_name
from effnet.arch.serde import check_choice, did_you_mean
from effnet.weights.catalog import google, keras, packages, timm, torchvision
from effnet.weights.catalog.entry import CatalogEntry as CatalogEntry

PUBLISHERS = ("timm", "torchvision", "lukemelas", "keras", "google", "ml-illustrated")
PERMISSIVE_LICENSES = ("apache-2.0", "bsd-3-clause", "mit")


def _list_entries() -> Iterator[CatalogEntry]:
    entries = (
        *(*timm.ENTRIES, *torchvision.ENTRIES, *torchvision.LUKEMELAS_ENTRIES, *keras.ENTRIES),
        *(*google.ENTRIES, *packages.ENTRIES),
    )
    for arch in ARCHS:
        of_arch = [entry for entry in entries if entry.arch == arch]
        usable = [entry for entry in of_arch if entry.publisher == "timm" and entry.label_set == "imagenet-1k"]
        usable = [entry for entry in usable if entry.license in PERMISSIVE_LICENSES]
        native = [entry for entry in usable if entry.test_size == ARCHS[arch].resolution]
        default = max(native or usable, key=lambda entry: entry.top1 or 0, default=None)  # the rule above
        yield from (replace(entry, default=entry is default) for entry in of_arch)


# Read-only, by name and by arch
ENTRIES: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _list_entries()})
DEFAULTS: Mapping[str, CatalogEntry] = MappingProxyType(
    {entry.arch: entry for entry in ENTRIES.values() if entry.default}
)


def _index_aliases() -> dict[str, str]:
    """Return lower-case aliases → names. The publisher's own default stands first in ``ENTRIES``."""
    found: dict[str, str] = {}
    for name, entry in ENTRIES.items():
        if entry.hub:
            tagged = entry.hub.removeprefix("timm/")
            # timm's names before it had tags
            improved = tagged.replace(".ns_jft_in1k", "_ns").replace(".ap_in1k", "_ap")
            larger = tagged.replace(".in21k_ft_in1k", "_in21ft1k").replace(".in21k", "_in21k")
            found |= dict.fromkeys((entry.hub, tagged, improved, larger), name)
            model = tagged.partition(".")[0]
            if model.startswith("tf_") or model.endswith("_pruned"):  # timm's alone
                found.setdefault(model, name)
        elif entry.package:
            found[entry.package] = name
        elif not entry.file:
            found[entry.url] = name
        if entry.publisher == "torchvision":
            weights = f"EfficientNet_{entry.arch}_Weights"
            found[f"{weights}.IMAGENET1K_{name.rpartition('_')[2]}"] = name
            found.setdefault(f"{weights}.DEFAULT", name)
    return {alias.lower(): name for alias, name in found.items()}


_ALIASES = _index_aliases()


def find_entry(name: str) -> CatalogEntry:
    """Return the entry called ``name``: its own name, the publisher's, a hub id, a URL, or an arch.

    A name may end before an underscore if that leaves one entry: ``b0/ra`` is ``b0/ra_in1k``. ``b0`` and other
    spellings of an arch stand for its default; ``tf_efficientnet_b0``, which only timm uses, for timm's own default.
    Raises ``ValueError``, with the closest name, if there is none.
    """
    wanted = name.strip().lower().removeprefix("hf-hub:").removeprefix("hf_hub:")
    known = wanted if wanted in ENTRIES else _ALIASES.get(wanted)
    if known is not None:
        return ENTRIES[known]
    longer = [entry for key, entry in ENTRIES.items() if key.startswith(f"{wanted}_")] if "/" in wanted else []
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise ValueError(f"{name} could be {' or '.join(entry.name for entry in longer)}")
    if "/" in wanted or "." in wanted:
        close = did_you_mean(wanted, [*ENTRIES, *_ALIASES]) or "; `effnet models --weights` lists them"
        raise ValueError(f"no weights are called {name!r}{close}")
    arch = canonical_name(name)
    if arch not in DEFAULTS:
        raise ValueError(f"{arch}: no weights are published; to train it: --weights FILE, or --weights none")
    return DEFAULTS[arch]


def search_entries(text: str = "", publisher: str = "") -> list[CatalogEntry]:
    """Return the entries with ``text`` in their names, or of the arch it stands for, from ``publisher``; "" is any.

    Raises ``ValueError``, with the closest name, if ``text`` stands for nothing or the publisher is unknown.
    """
    if publisher:
        check_choice("publisher", publisher, PUBLISHERS)
    found = [entry for entry in ENTRIES.values() if text.lower() in entry.name]
    if not found:
        arch = canonical_name(text)
        found = [entry for entry in ENTRIES.values() if entry.arch == arch]
    return [entry for entry in found if publisher in ("", entry.publisher)]
