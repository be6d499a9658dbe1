"""The recipe of the Lite networks on ImageNet: the paper's, on pictures as Lite sees them.

Lite differs from the paper's recipe in the pictures alone: bilinear crops, (x − 127) / 128, which the network's own
preprocessing says. Source: the official code's ``lite`` README and ``main.py``.
Result there: Lite0 75.1, Lite1 76.7, Lite2 77.6, Lite3 79.8, Lite4 81.5 % top-1.
**Not run here**: no ImageNet is at hand. Cost: not published; by arithmetic as of the paper's B0, 122 device-hours at
1,000 pictures a second.
Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model lite0 --weights none --recipe lite``
"""

from dataclasses import replace

from effnet.training.recipes.paper import paper

LITE = replace(paper(0), name="lite")
