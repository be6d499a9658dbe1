"""PyTorch as it is: batch norm folded, channels-last, no gradients."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effnet.data.normalise import normalise
from effnet.data.pixels import Fitted
from effnet.net import EfficientNet
from effnet.net.device import pick
from effnet.net.surgery import fold

Floats = NDArray[np.float32]


class Eager:
    """A network ready to run, made from a copy: what is done to ``model`` later does not reach it."""

    def __init__(self, model: EfficientNet, device: str | None = None) -> None:
        self.device = pick(device)
        self.preprocess = model.preprocess
        self.model = fold(model).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, pictures: Fitted) -> Floats:
        """Pictures already cropped, 0 to 255 (N, H, W, 3) -> float32 (N, classes) logits."""
        with torch.inference_mode():
            return self._out(self.model(self._input(pictures)))

    def embed(self, pictures: Fitted) -> Floats:
        """Pictures already cropped, 0 to 255 (N, H, W, 3) -> float32 (N, head channels), the pooled features."""
        with torch.inference_mode():
            return self._out(self.model.embed(self._input(pictures)))

    def _input(self, pictures: Fitted) -> Tensor:
        return normalise(torch.from_numpy(pictures).to(self.device), self.preprocess)

    def _out(self, x: Tensor) -> Floats:
        out: Floats = x.float().cpu().numpy()
        return out
