"""For the whole suite: torchvision, which timm imports, must find its operators declared."""

from effnet.data.without_operators import declare_operators

declare_operators()
