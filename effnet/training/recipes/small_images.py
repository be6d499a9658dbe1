"""Pictures of about 32 pixels, as CIFAR's: two ways, both from random weights.

``small_images``: the stem keeps the picture's size (stride 1), so that five halvings become four and the last map is of
2×2 pixels. ``small_images_resized``: the network as it is, pictures enlarged to 96 pixels; nine times the pixels of
the first, at a quarter of its maps' share.

The rate is a quarter of the official one (.016 per 256). Lite0 with a stem of stride 1, five epochs of 4,000 pictures
of CIFAR-10, judged by 2,000 others, one seed: RMSProp at .002 per 128 30.1 %, at .008 17.9 %; SGD at .1 22.7 %; AdamW
at .002 19.8 %.

Both, six epochs of nano on 10,000 pictures of CIFAR-10 (2026-11-22, one seed, judged by 2,000 others, which move such a
figure by 2 points): 49.9 % and 48.1 %, and the enlarged pictures took over twice the time. Hence the first is the one
to begin with.

Source: our own. All 30 epochs were not run here.
Command: ``effnet train PICTURES --model nano --weights none --recipe small_images``
"""

from dataclasses import replace

from effnet.data.augment import Augment
from effnet.training.recipe import Recipe

SMALL_IMAGES = Recipe(
    name="small_images",
    epochs=30,
    batch=128,
    optimiser="rmsprop",
    learning_rate=0.002,
    rate_batch=128,
    schedule="cosine",
    warm_up=2.0,
    weight_decay=1e-5,
    label_smoothing=0.1,
    average=0.999,
    norm_momentum=0.1,
    size=32,
    stem_stride=1,
    select_share=0.1,
    augment=Augment(crop=0.6, policy="randaugment", layers=1, magnitude=6),
)
SMALL_IMAGES_RESIZED = replace(SMALL_IMAGES, name="small_images_resized", size=96, stem_stride=2)
