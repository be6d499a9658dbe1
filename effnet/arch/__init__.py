"""What a network is, as data and arithmetic: the standard library only."""

from effnet.arch.budget import fit as fit
from effnet.arch.count import Count as Count
from effnet.arch.count import LayerCount as LayerCount
from effnet.arch.count import count as count
from effnet.arch.operations import Operation as Operation
from effnet.arch.operations import operations as operations
from effnet.arch.operations import tensors as tensors
from effnet.arch.published import TOP1 as TOP1
from effnet.arch.scaling import Rounding as Rounding
from effnet.arch.scaling import rounding as rounding
from effnet.arch.scaling import scale as scale
from effnet.arch.spec import Arch as Arch
from effnet.arch.spec import Layer as Layer
from effnet.arch.spec import Stage as Stage
from effnet.arch.spec import block as block
from effnet.arch.spec import layers as layers
from effnet.arch.tables import ARCHS as ARCHS
from effnet.arch.tables import canonical as canonical
from effnet.arch.tables import resolve as resolve
