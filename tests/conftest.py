"""For the whole suite: what must hold before anything else is imported or run."""

import torch

from effnet.data.without_operators import declare_operators

declare_operators()  # timm imports torchvision
torch.set_num_threads(1)  # these networks are small: threads that wait for each other take longer than one alone
