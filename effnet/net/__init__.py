"""The network in PyTorch."""

from effnet.net.blocks import FusedMBConv, MBConv
from effnet.net.layers import SqueezeExcite
from effnet.net.network import EfficientNet, create

__all__ = ["EfficientNet", "FusedMBConv", "MBConv", "SqueezeExcite", "create"]
