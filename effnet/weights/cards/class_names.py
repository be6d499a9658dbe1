"""What the outputs of a card's classifier are called."""

from __future__ import annotations

from effnet.contract import Labels
from effnet.weights.cards.card import Card


def labels(card: Card) -> Labels:
    """The class names of ``card``: those of ImageNet-1k, with "background" before them where it has that class.

    They are the names that torchvision gives with its weights, which differ from each other ("crane", "crane bird";
    "cardigan", and the dog "Cardigan"). The names of the larger sets are not known here: no labels. Raises
    ``ImportError`` where torchvision is not installed.
    """
    if not card.labels.startswith("imagenet-1k"):
        return Labels()
    background = ("background",) if card.labels.endswith("+background") else ()
    return Labels((*background, *_imagenet()))


def _imagenet() -> tuple[str, ...]:
    from effnet.data.without_operators import declare_operators

    declare_operators()
    from torchvision.models import EfficientNet_B0_Weights

    return tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])
