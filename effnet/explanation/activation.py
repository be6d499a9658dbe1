"""Class activation maps (arXiv:1512.04150): how much each part of a picture speaks for a class.

The family ends in a mean over the head's map and one linear layer. Weighing that map's channels before the mean instead
of after it gives the same sum: the map is exact, with no gradient and nothing approximated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effnet.data.normalise import normalise
from effnet.data.pixels import Fitted
from effnet.net import EfficientNet


@torch.no_grad()
def activation(model: EfficientNet, pictures: Fitted, classes: Sequence[int] | None = None) -> NDArray[np.float32]:
    """Class activation maps of ``pictures``: float32 (N, classes, height, width) of the head's map.

    ``pictures``: (N, H, W, 3) of 0 to 255, as `effnet.data.pixels.pixels` gives them, of any size; or a single one
    (H, W, 3), whose maps are (classes, height, width). ``classes``: which, in this order; None for all.
    A map's sum is the class's logit without its bias, so that its values are shares of the logit: map_c = Σ_k w_ck A_k
    divided by the number of its pixels. Of a network whose labels are values, they are shares of the value.
    ``model`` answers as in prediction, whatever mode it is in, and is left as it was.
    Raises ``ValueError`` for a network without a classifier, and for a class that it does not have.
    """
    classifier = model.classifier
    if not isinstance(classifier, nn.Linear):
        raise ValueError("this network has no classifier, and so no class to explain: give it a head first")
    chosen = list(range(model.classes)) if classes is None else list(classes)
    for one in chosen:
        if not 0 <= one < model.classes:
            raise ValueError(f"there is no class {one}: the network has {model.classes}, from 0 to {model.classes - 1}")
    batch = torch.from_numpy(np.array(pictures if pictures.ndim == 4 else pictures[None]))  # (N, H, W, 3)
    before = model.training
    model.eval()
    try:
        seen = normalise(batch.to(classifier.weight.device), model.preprocess).to(classifier.weight.dtype)
        last = model.features(seen)["head"]  # (N, K, h, w)
    finally:
        model.train(before)
    maps = torch.einsum("ck,nkhw->nchw", classifier.weight[chosen], last) / last[0, 0].numel()
    found: NDArray[np.float32] = maps.float().cpu().numpy()  # (N, classes, h, w)
    return found if pictures.ndim == 4 else found[0]
