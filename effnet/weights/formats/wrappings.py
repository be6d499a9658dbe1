"""What training scripts put around the weights, taken off: keys over the state dict, prefixes before its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.weights.formats.content import Content

# Best first: an average of the weights is what was evaluated.
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")
WRAPPERS = (*AVERAGES, "state_dict", "model_state_dict", "model", "net", "params", "module")
DEEPEST = 4  # wrappers around wrappers; a file may also hold itself
# Of distributed and compiled modules, and of the attributes in which training code likes to keep its network
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")


def unwrap(content: Any, path: Path) -> Content:
    """The tensors by name inside what training scripts save: {"state_dict": …, "epoch": …}.

    Raises ``ValueError`` where there are none, or one that is more than an array of numbers.
    """
    found = _inside(content, ())
    if found is None:
        raise ValueError(f"{path}: no tensors by name in it")
    tensors, keys = found
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout is not torch.strided:
            raise ValueError(f"{path}: {name} is no plain array of numbers, but quantised, sparse, complex or hollow")
    averaged = any(key in AVERAGES for key in keys)
    return Content(tensors, remarks=(f"the averaged weights are taken, {'.'.join(keys)}",) if averaged else ())


def unprefixed(content: Content) -> Content:
    """The same without the prefixes that *all* names carry."""
    tensors = content.tensors
    while tensors and (prefix := next((one for one in PREFIXES if all(n.startswith(one) for n in tensors)), None)):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return content if tensors is content.tensors else replace(content, tensors=tensors)


def _inside(content: Any, keys: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """The best tensors by name in ``content``, and the keys under which they lie."""
    if not isinstance(content, Mapping) or not content or len(keys) > DEEPEST:
        return None
    for wrapper in WRAPPERS:
        if found := _inside(content.get(wrapper), (*keys, wrapper)):
            return found
    if not all(isinstance(value, Tensor) for value in content.values()):
        return None
    # torch's AveragedModel counts its updates beside the weights
    return {str(name): tensor for name, tensor in content.items() if name != "n_averaged"}, keys
