"""Fine-tune pretrained weights on your pictures; the default where there are any.

First a probe: one pass of the frozen network, a linear head fitted in closed form. It is reported, and the whole
network is trained from there at a low rate, batch norm's statistics frozen (not of 20,000 pictures or more). The probe
stays unless the whole network is clearly better on the pictures to choose by.

Source: our own. Cost and result, two CPU cores, Lite0, 2026-11-21: 245 photos of ants and bees, 62–77 s, 145 of 153
validation photos (the probe stayed); 1,500 CIFAR-10 pictures at 96 pixels, 167 s, 80.5 % of 400 (the probe 69 %).
Command: ``effnet train PHOTOS --weights FILE``
"""

from effnet.data.augment import Augment
from effnet.training.recipe import Recipe

FINETUNE = Recipe(
    name="finetune",
    epochs=20,
    batch=32,
    rate_batch=32,
    learning_rate=3e-4,
    backbone_rate=0.3,
    warm_up=0.5,
    weight_decay=0.02,
    label_smoothing=0.05,
    average=0.98,
    norms="auto",
    patience=5,
    probe=True,
    minutes=1.0,
    augment=Augment(crop=0.4, jitter=0.2),
)
