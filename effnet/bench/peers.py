"""The peers' contestants: timm's and torchvision's networks, each set up as those who know them would."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from effnet.arch import ARCHS, Arch
from effnet.bench.contestant import Contestant, Logits, Pictures, as_logits
from effnet.data.normalise import normalise
from effnet.data.without_operators import declare_operators
from effnet.net import EfficientNet
from effnet.weights import convert

PEERS = ("timm", "torchvision")
Network = Callable[[Tensor], Tensor]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def installed() -> tuple[str, ...]:
    """The peers whose packages are here."""
    return tuple(name for name in PEERS if find_spec(name))


def peers(
    model: EfficientNet,
    peer: str,
    precision: str,
    seen: Pictures,
    ways: tuple[str, ...] = ("channels-last", "contiguous"),
) -> list[Contestant]:
    """The network of ``peer`` with the numbers of ``model``, for the pictures ``seen``; none where it has none such.

    Evaluation mode, inference mode, and each of ``ways``: "channels-last", "contiguous" (torch's default memory format)
    and "compiled" (channels-last through torch.compile). Normalising is done beforehand and not timed.
    Raises ``ImportError`` where ``peer`` is not installed.
    """
    if not find_spec(peer):
        raise ImportError(f"{peer} is not installed here: pip install {peer}, or go without: --against none")
    declare_operators()
    built = (_timm if peer == "timm" else _torchvision)(model) if precision in DTYPES else None
    if built is None:
        return []
    same = peer == "timm" or (model.numerics.padding, model.numerics.fused_padding) == ("symmetric", "")
    normalised = normalise(torch.from_numpy(seen), model.preprocess).to(DTYPES[precision])
    found = []
    for name in ways:
        layout = torch.contiguous_format if name == "contiguous" else torch.channels_last
        network = deepcopy(built).eval().to(dtype=DTYPES[precision], memory_format=layout)  # type: ignore[call-overload]
        call: Network = torch.compile(network) if name == "compiled" else network
        run = partial(_infer, call, normalised.contiguous(memory_format=layout))
        found.append(Contestant(f"{peer} {name}", precision, run, partial(_logits, run), same))
    return found


def _infer(network: Network, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(x)


def _logits(run: Callable[[], Tensor]) -> Logits:
    return as_logits(run())


def _timm(model: EfficientNet) -> nn.Module | None:
    import timm

    name = _published(model.arch)
    if not name:
        return None
    if name.startswith("v2_"):
        theirs = f"efficientnetv2_{name.removeprefix('v2_')}"
    else:
        theirs = f"efficientnet_{name.replace('edge_', 'e')}"
    numerics = model.numerics
    sizes: dict[str, Any] = {"num_classes": model.classes, "in_chans": model.channels}
    if numerics.padding == "symmetric" and theirs in timm.list_models():
        built = timm.create_model(theirs, **sizes)
    else:
        padding: dict[str, Any] = {} if numerics.padding == "same" else {"pad_type": "", "bn_eps": numerics.bn_eps}
        built = timm.create_model(f"tf_{theirs}", **padding, **sizes)
    return _with_numbers(built, model, "timm")


def _torchvision(model: EfficientNet) -> nn.Module | None:
    import torchvision

    name = _published(model.arch)
    theirs = f"efficientnet_{name}" if name else ""
    if theirs not in torchvision.models.list_models() or model.channels != 3 or not model.classes:
        return None
    built = getattr(torchvision.models, theirs)(num_classes=model.classes)
    return _with_numbers(built, model, "torchvision")


def _published(arch: Arch) -> str:
    """The name of a published arch; "" for one that was scaled or changed."""
    return next((name for name, known in ARCHS.items() if known == arch and name != "nano"), "")


def _with_numbers(built: nn.Module, model: EfficientNet, layout: str) -> nn.Module:
    """``built`` with the numbers, and the ε, of ``model``."""
    theirs = convert(model.state_dict(), model.arch, "effnet", layout)
    missing = built.load_state_dict(theirs, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = model.numerics.bn_eps
    return built
