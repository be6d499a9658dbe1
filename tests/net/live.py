"""How many bytes of maps a forward pass really holds at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until nobody holds it any more; ``peak`` is the most at once."""

    def __init__(self, *before: Tensor) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self._see(before)

    def _see(self, tensors: tuple[Any, ...]) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        weights = {arg.untyped_storage()._cdata for arg in tree_leaves(args) if isinstance(arg, nn.Parameter)}
        out = function(*args, **(kwargs or {}))
        made = tree_leaves(out)
        self._see(tuple(t for t in made if isinstance(t, Tensor) and t.untyped_storage()._cdata not in weights))
        return out


def peak_bytes(model: nn.Module, size: tuple[int, int]) -> int:
    """The peak of one image's forward pass, the image itself included."""
    images = [torch.rand(1, 3, *size)]
    with torch.inference_mode(), LiveBytes(*images) as live:
        model(images.pop())
    return live.peak
