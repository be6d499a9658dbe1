"""The paper's recipe for ImageNet, B0 to B7 (arXiv:1905.11946 v5, section 5.2, and the code published with it).

RMSProp as TensorFlow's (decay and momentum .9, ε .001), .256 for batches of 4,096, risen to in 5 epochs, × .97 every
2.4 epochs; L2 of 1e-5 on all but batch norm; the weights' average at .9999; AutoAugment (policy v0); stochastic depth
.2, dropout by size, both the network's own; labels smoothed by .1; 350 epochs, the best chosen on a part of the
training set (25,022 pictures) and judged on the validation set.

Source of what the paper leaves out (ε, batch, L2, average, crop): its ``main.py`` and ``preprocessing.py``.
Result there (AutoAugment): B0 77.1, B1 79.1, B2 80.1, B3 81.6, B4 82.9, B5 83.6, B6 84.0, B7 84.3 % top-1; who ran the
published scripts again got 76.8 to 77.3 for B0. **Not run here**: no ImageNet is at hand.
Cost there: not published. By arithmetic: 440 million pictures, of three times the network's MACs each; at 1,000
pictures a second B0 takes 122 device-hours, and the others as many times longer as they have MACs (B7 98 times).
Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model b0 --weights none --recipe paper_b0``
"""

from effnet.data.augment import Augment
from effnet.training.recipe import Recipe

EPOCHS = 350
MINIVAL = 25_022 / 1_281_167  # 20 of 1,024 shards


def paper(number: int) -> Recipe:
    """The recipe of B``number``."""
    return Recipe(
        name=f"paper_b{number}",
        epochs=EPOCHS,
        batch=4096,
        optimiser="rmsprop",
        learning_rate=0.016,
        rate_batch=256,
        schedule="exponential",
        warm_up=5.0,
        weight_decay=1e-5,
        label_smoothing=0.1,
        average=0.9999,
        norm_momentum=0.01,
        select_share=MINIVAL,
        augment=Augment(crop=0.08, policy="autoaugment"),
    )


PAPER = tuple(paper(number) for number in range(8))
