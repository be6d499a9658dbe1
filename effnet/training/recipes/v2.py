"""EfficientNetV2's recipe for ImageNet: progressive learning (arXiv:2104.00298, section 4.2 and Table 6).

Four stretches of about 87 epochs: pictures grow from 128 to 300 (S) or 380 pixels (M, L), and with them RandAugment
(5 to 15, 20, 25), dropout (.1 to .3, .4, .5) and mixup (0 to 0, .2, .5). The rest is the paper's recipe for B0:
RMSProp, .256 for batches of 4,096, the average at .9999.

The published code has other values (RandAugment to 10, 15, 20, no rising dropout, L at 384 pixels, cutmix as mixup);
these are the paper's. Result there: S 83.9, M 85.2, L 85.7 % top-1; cost there 7.1, 13 and 24 hours on 32 TPUv3 cores.
**Not run here**: no ImageNet is at hand.
Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model v2_s --weights none --recipe v2_s``
"""

from dataclasses import replace

from effnet.data.augment import Augment
from effnet.training.recipe import Progress, Recipe
from effnet.training.recipes.paper import paper


def v2(name: str, size: int, magnitude: float, dropout: float, mixup: float) -> Recipe:
    """The recipe of V2-``name``: what its settings rise to."""
    return replace(
        paper(0),
        name=f"v2_{name}",
        augment=Augment(crop=0.08, policy="randaugment", layers=2),
        progress=Progress(4, (128, size), (5, magnitude), (0.1, dropout), (0, mixup)),
    )


V2 = (v2("s", 300, 15, 0.3, 0.0), v2("m", 380, 20, 0.4, 0.2), v2("l", 380, 25, 0.5, 0.5))
