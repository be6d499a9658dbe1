"""What a network is, as data and arithmetic: the standard library only."""

from effnet.arch.counting import Count as Count
from effnet.arch.counting import LayerCount as LayerCount
from effnet.arch.counting import Operation as Operation
from effnet.arch.counting import count as count
from effnet.arch.counting import operations as operations
from effnet.arch.counting import tensor_shapes as tensor_shapes
from effnet.arch.fitting import fit as fit
from effnet.arch.scaling import RoundingReport as RoundingReport
from effnet.arch.scaling import rounding as rounding
from effnet.arch.scaling import scale as scale
from effnet.arch.spec import Arch as Arch
from effnet.arch.spec import Layer as Layer
from effnet.arch.spec import Stage as Stage
from effnet.arch.spec import block_layer as block_layer
from effnet.arch.spec import layers as layers
from effnet.arch.variants import ARCHS as ARCHS
from effnet.arch.variants import PUBLISHED_TOP1 as PUBLISHED_TOP1
from effnet.arch.variants import canonical_name as canonical_name
from effnet.arch.variants import resolve_arch as resolve_arch
