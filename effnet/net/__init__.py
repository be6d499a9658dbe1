"""The network in PyTorch."""

from effnet.net.blocks import FusedMBConv as FusedMBConv
from effnet.net.blocks import MBConv as MBConv
from effnet.net.blocks import SqueezeExcite as SqueezeExcite
from effnet.net.network import EfficientNet as EfficientNet
from effnet.net.network import create as create
