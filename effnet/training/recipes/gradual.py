"""Fine-tune from the top down: a probe, the classifier, then one part more with every epoch, the deeper the slower.

Gradual unfreezing and discriminative learning rates (arXiv:1801.06146), for sets so small or so unlike the pictures of
the weights that training everything at once forgets more than it learns.

Source: our own settings. **Not run here** beyond its tests.
Command: ``effnet train PHOTOS --weights FILE --recipe gradual``
"""

from dataclasses import replace

from effnet.training.recipes.finetune import FINETUNE

GRADUAL = replace(
    FINETUNE, name="gradual", epochs=16, unfreeze=1.0, layer_rate=0.8, backbone_rate=1.0, norms="auto", minutes=0.0
)
