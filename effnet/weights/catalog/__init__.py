"""The catalogue: every published file of weights, as data.

A card is named "ARCH/WHAT", where WHAT is what its publisher calls the weights:

- timm: its tag, with ``tf_`` before it for Google's weights, ported: "b0/ra_in1k", "b0/tf_aa_in1k";
- torchvision: "b1/torchvision_v2"; lukemelas: "b0/lukemelas", "b0/lukemelas_advprop"; Keras: "b0/keras",
  "b0/keras_notop" (no classifier);
- Google: "b0/google" and, by what they were trained with, "b0/google_aa" (AutoAugment), "_ra" (RandAugment), "_ap"
  (AdvProp), "_ns" (Noisy Student), "v2_s/google_in21k", "_in21k_ft"; TFLite's "lite0/google_int8", "_float32".

The bare name of an arch means its default card, by this rule: among timm's (one file each in an open format, under a
stated and permissive licence) with ImageNet-1k's classes, those tested at the arch's own resolution (where there are
none, as for Lite3 and Lite4, any), and of them the one with the best published top-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from effnet.arch import ARCHS, canonical_name
from effnet.arch.serde import check_choice, did_you_mean
from effnet.weights.catalog import google, keras, lukemelas, timm, torchvision
from effnet.weights.catalog.entry import CatalogEntry as CatalogEntry
from effnet.weights.catalog.entry import class_labels as class_labels

PUBLISHERS = ("timm", "torchvision", "lukemelas", "keras", "google")
PERMISSIVE_LICENSES = ("apache-2.0", "bsd-3-clause", "mit")


def _list_entries() -> Iterator[CatalogEntry]:
    """Every card in the order of the archs and publishers, the default of its arch marked."""
    cards = (*timm.ENTRIES, *torchvision.ENTRIES, *lukemelas.ENTRIES, *keras.ENTRIES, *google.ENTRIES)
    for arch in ARCHS:
        own = [card for card in cards if card.arch == arch]
        best = _choose_default(own)
        yield from (replace(card, default=card is best) for card in own)


def _choose_default(entries: list[CatalogEntry]) -> CatalogEntry | None:
    """The one that the arch's bare name means: see the rule above."""
    usable = [card for card in entries if card.publisher == "timm" and card.label_set == "imagenet-1k"]
    usable = [card for card in usable if card.license in PERMISSIVE_LICENSES]
    native = [card for card in usable if card.test_size == ARCHS[card.arch].resolution]
    return max(native or usable, key=lambda card: card.top1 or 0, default=None)


# Every card by its name, in the order of the archs. Read-only.
ENTRIES: Mapping[str, CatalogEntry] = MappingProxyType({card.name: card for card in _list_entries()})
DEFAULTS: Mapping[str, CatalogEntry] = MappingProxyType({card.arch: card for card in ENTRIES.values() if card.default})


def _aliases(entry: CatalogEntry) -> Iterator[str]:
    """What else people call ``card``: its address, and its name where it is published."""
    if entry.hub:
        tagged = entry.hub.removeprefix("timm/")
        yield from (entry.hub, tagged)
        yield tagged.replace(".ns_jft_in1k", "_ns").replace(".ap_in1k", "_ap")  # as timm called them before it had tags
        yield tagged.replace(".in21k_ft_in1k", "_in21ft1k").replace(".in21k", "_in21k")
    elif not entry.file:
        yield entry.url
    if entry.publisher == "torchvision":
        yield f"EfficientNet_{entry.arch}_Weights.IMAGENET1K_{entry.name.rpartition('_')[2]}"


def _index_aliases() -> dict[str, str]:
    """Other spelling, in lower case → the card's name. timm's and torchvision's own default stands first with them."""
    found: dict[str, str] = {}
    for card in ENTRIES.values():
        for spelling in _aliases(card):
            found[spelling.lower()] = card.name
        model = card.hub.removeprefix("timm/").partition(".")[0]
        if model.startswith("tf_"):  # nobody else's
            found.setdefault(model, card.name)
        if card.publisher == "torchvision":
            found.setdefault(f"EfficientNet_{card.arch}_Weights.DEFAULT".lower(), card.name)
    return found


_ALIASES = _index_aliases()


def find_entry(name: str) -> CatalogEntry:
    """The card that ``name`` means: its own name, its publisher's, a hub id, its address, or an arch's name.

    A name may be cut off before an underscore where that leaves one card: ``b0/ra`` is ``b0/ra_in1k``. ``b0`` and
    other spellings of an arch mean its default card; ``tf_efficientnet_b0``, which is timm's alone, means timm's own
    default. Raises ``ValueError``, with the nearest name, where none is meant.
    """
    wanted = name.strip().lower().removeprefix("hf-hub:").removeprefix("hf_hub:")
    known = wanted if wanted in ENTRIES else _ALIASES.get(wanted)
    if known is not None:
        return ENTRIES[known]
    longer = [card for key, card in ENTRIES.items() if key.startswith(f"{wanted}_")] if "/" in wanted else []
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise ValueError(f"{name} could be {' or '.join(card.name for card in longer)}")
    if "/" in wanted or "." in wanted:
        close = did_you_mean(wanted, [*ENTRIES, *_ALIASES]) or "; `effnet models --weights` lists them"
        raise ValueError(f"no weights are called {name!r}{close}")
    arch = canonical_name(name)
    if arch not in DEFAULTS:
        raise ValueError(f"{arch}: no weights of it are published; to train it: --weights FILE, or --weights none")
    return DEFAULTS[arch]


def search_entries(text: str = "", publisher: str = "") -> list[CatalogEntry]:
    """The cards with ``text`` in their names, or of the arch that it means, and of that publisher; all with "".

    Raises ``ValueError``, with the nearest name, where ``text`` means nothing or the publisher is unknown.
    """
    if publisher:
        check_choice("publisher", publisher, PUBLISHERS)
    found = [card for card in ENTRIES.values() if text.lower() in card.name]
    if not found:
        arch = canonical_name(text)
        found = [card for card in ENTRIES.values() if card.arch == arch]
    return [card for card in found if publisher in ("", card.publisher)]
