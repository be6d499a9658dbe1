"""Every step of torch's eager mode, timed as it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.hooks import RemovableHandle

from effnet.bench.contestant import Pictures
from effnet.bench.why.cost import INPUT, Key
from effnet.bench.why.profile import Pass, Profiled
from effnet.data.normalise import normalise
from effnet.net import EfficientNet
from effnet.net.layers import Conv
from effnet.net.surgery import fold

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def eager(model: EfficientNet, precision: str, seen: Pictures, threads: int) -> Profiled:
    """``model`` as the engine "eager" runs it: batch norm folded, channels-last.

    Raises ``ValueError`` for a precision other than float32 and bfloat16.
    """
    if precision not in DTYPES:
        raise ValueError(f"eager computes in {' or '.join(DTYPES)} here, not in {precision}")
    dtype = DTYPES[precision]
    folded = fold(model).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    given = torch.from_numpy(seen)

    def run() -> object:
        with torch.inference_mode():
            return folded(normalise(given, model.preprocess).to(dtype)).float().numpy()

    passes: list[Pass] = []

    def profiled() -> None:
        with _Steps(folded) as steps, _following(folded, steps):
            run()
        passes.append(steps.seconds)

    return Profiled("eager", precision, threads, run, profiled, lambda: passes)


class _Steps(TorchFunctionMode):
    """Times every call of torch that computes, under the module that makes it."""

    def __init__(self, model: EfficientNet) -> None:
        super().__init__()
        self.seconds: dict[Key, float] = {}
        self.at: list[str] = []  # paths of the modules that are running, the innermost last
        self.convolutions = {name for name, module in model.named_modules() if isinstance(module, (Conv, nn.Linear))}

    def left(self) -> None:
        """The innermost module has ended."""
        self.at.pop()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        start = perf_counter()
        out = function(*args, **(kwargs or {}))
        taken = perf_counter() - start
        if isinstance(out, Tensor):
            key = self._key(function)
            self.seconds[key] = self.seconds.get(key, 0.0) + taken
        return out

    def _key(self, function: Callable[..., Any]) -> Key:
        path = self.at[-1] if self.at else None
        if path is None:
            return Key(INPUT, "input")
        called = (resolve_name(function) or "").rsplit(".", 1)[-1]
        if path in self.convolutions:
            operation = path.removesuffix(".conv")
            return Key(operation, "padding" if called == "pad" else "convolution")
        if path == "":  # the network itself: what is left to it is the mean over the head's map
            return Key("classifier", "pool")
        owner, _, own = path.rpartition(".")
        if own == "squeeze_excite":
            part = {"mean": "mean", "sigmoid": "activation"}.get(called, "gate")
            return Key(f"{path}.{'reduce' if part == 'mean' else 'expand'}", part)
        if own == "activation":
            return Key(f"{owner}.reduce" if owner.endswith("squeeze_excite") else owner, "activation")
        return Key(path, "residual")


@contextmanager
def _following(model: EfficientNet, steps: _Steps) -> Iterator[None]:
    """In this block ``steps`` knows which module runs."""
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Identity, nn.Dropout, nn.Sequential)) or name == "":
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: steps.at.append(name)))
            handles.append(module.register_forward_hook(lambda *_: steps.left()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
