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

from effnet.arch import ARCHS, canonical
from effnet.arch.record import choice, did_you_mean
from effnet.weights.cards import google, keras, lukemelas, timm, torchvision
from effnet.weights.cards.card import Card as Card
from effnet.weights.cards.class_names import labels as labels

PUBLISHERS = ("timm", "torchvision", "lukemelas", "keras", "google")
PERMISSIVE = ("apache-2.0", "bsd-3-clause", "mit")


def _all() -> Iterator[Card]:
    """Every card in the order of the archs and publishers, the default of its arch marked."""
    cards = (*timm.CARDS, *torchvision.CARDS, *lukemelas.CARDS, *keras.CARDS, *google.CARDS)
    for arch in ARCHS:
        own = [card for card in cards if card.arch == arch]
        best = _default(own)
        yield from (replace(card, default=card is best) for card in own)


def _default(cards: list[Card]) -> Card | None:
    """The one that the arch's bare name means: see the rule above."""
    usable = [card for card in cards if card.publisher == "timm" and card.labels == "imagenet-1k"]
    usable = [card for card in usable if card.licence in PERMISSIVE]
    native = [card for card in usable if card.tested_at == ARCHS[card.arch].resolution]
    return max(native or usable, key=lambda card: card.top1 or 0, default=None)


# Every card by its name, in the order of the archs. Read-only.
CARDS: Mapping[str, Card] = MappingProxyType({card.name: card for card in _all()})
DEFAULTS: Mapping[str, Card] = MappingProxyType({card.arch: card for card in CARDS.values() if card.default})


def _spellings(card: Card) -> Iterator[str]:
    """What else people call ``card``: its address, and its name where it is published."""
    if card.hub:
        tagged = card.hub.removeprefix("timm/")
        yield from (card.hub, tagged)
        yield tagged.replace(".ns_jft_in1k", "_ns").replace(".ap_in1k", "_ap")  # as timm called them before it had tags
        yield tagged.replace(".in21k_ft_in1k", "_in21ft1k").replace(".in21k", "_in21k")
    elif not card.file:
        yield card.url
    if card.publisher == "torchvision":
        yield f"EfficientNet_{card.arch}_Weights.IMAGENET1K_{card.name.rpartition('_')[2]}"


def _other_names() -> dict[str, str]:
    """Other spelling, in lower case → the card's name. timm's and torchvision's own default stands first with them."""
    found: dict[str, str] = {}
    for card in CARDS.values():
        for spelling in _spellings(card):
            found[spelling.lower()] = card.name
        model = card.hub.removeprefix("timm/").partition(".")[0]
        if model.startswith("tf_"):  # nobody else's
            found.setdefault(model, card.name)
        if card.publisher == "torchvision":
            found.setdefault(f"EfficientNet_{card.arch}_Weights.DEFAULT".lower(), card.name)
    return found


_OTHER_NAMES = _other_names()


def card(name: str) -> Card:
    """The card that ``name`` means: its own name, its publisher's, a hub id, its address, or an arch's name.

    A name may be cut off before an underscore where that leaves one card: ``b0/ra`` is ``b0/ra_in1k``. ``b0`` and
    other spellings of an arch mean its default card; ``tf_efficientnet_b0``, which is timm's alone, means timm's own
    default. Raises ``ValueError``, with the nearest name, where none is meant.
    """
    wanted = name.strip().lower().removeprefix("hf-hub:").removeprefix("hf_hub:")
    known = wanted if wanted in CARDS else _OTHER_NAMES.get(wanted)
    if known is not None:
        return CARDS[known]
    longer = [card for key, card in CARDS.items() if key.startswith(f"{wanted}_")] if "/" in wanted else []
    if len(longer) == 1:
        return longer[0]
    if longer:
        raise ValueError(f"{name} could be {' or '.join(card.name for card in longer)}")
    if "/" in wanted or "." in wanted:
        close = did_you_mean(wanted, [*CARDS, *_OTHER_NAMES]) or "; `effnet models --weights` lists them"
        raise ValueError(f"no weights are called {name!r}{close}")
    arch = canonical(name)
    if arch not in DEFAULTS:
        raise ValueError(f"{arch}: no weights of it are published; to train it: --weights FILE, or --weights none")
    return DEFAULTS[arch]


def select(text: str = "", publisher: str = "") -> list[Card]:
    """The cards with ``text`` in their names, or of the arch that it means, and of that publisher; all with "".

    Raises ``ValueError``, with the nearest name, where ``text`` means nothing or the publisher is unknown.
    """
    if publisher:
        choice("publisher", publisher, PUBLISHERS)
    found = [card for card in CARDS.values() if text.lower() in card.name]
    if not found:
        arch = canonical(text)
        found = [card for card in CARDS.values() if card.arch == arch]
    return [card for card in found if publisher in ("", card.publisher)]
