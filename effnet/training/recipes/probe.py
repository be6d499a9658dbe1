"""A linear head on the frozen network, nothing more: seconds of fitting after one pass over the pictures."""

from effnet.training.recipe import Recipe

PROBE = Recipe(name="probe", epochs=0, probe=True)
