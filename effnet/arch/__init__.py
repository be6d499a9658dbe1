"""What a network is, as data and arithmetic: the standard library only."""

from effnet.arch.counting import Count, LayerCount, Operation, count, operations, tensor_shapes
from effnet.arch.fitting import fit
from effnet.arch.scaling import RoundingReport, rounding, scale
from effnet.arch.spec import Arch, Layer, Stage, block_layer, layers
from effnet.arch.variants import ARCHS, PUBLISHED_TOP1, canonical_name, resolve_arch

__all__ = ["ARCHS", "PUBLISHED_TOP1", "Arch", "Count", "Layer", "LayerCount", "Operation", "RoundingReport"]
__all__ += ["Stage", "block_layer", "canonical_name", "count", "fit", "layers", "operations", "resolve_arch"]
__all__ += ["rounding", "scale", "tensor_shapes"]
