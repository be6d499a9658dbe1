"""The network in PyTorch."""

from effnet.net.blocks import FusedMBConv, MBConv, SqueezeExcite
from effnet.net.network import EfficientNet, create

__all__ = ["EfficientNet", "FusedMBConv", "MBConv", "SqueezeExcite", "create"]
