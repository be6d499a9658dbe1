"""What is in a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.metadata import Labels, Numerics


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file by name, and whatever else it says of itself.

    ``layout`` is set where the format has only one. ``preprocess`` holds those fields of the contract's `Preprocess`
    that the file states; ``numerics`` and ``labels`` likewise. ``remarks`` say in words what had to be done or chosen.
    """

    tensors: dict[str, Tensor]
    header: Mapping[str, str] = field(default_factory=dict)
    layout: str | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    numerics: Numerics | None = None
    labels: Labels = field(default_factory=Labels)
    notes: tuple[str, ...] = ()


# What training scripts put around the weights, taken off: keys over the state dict, prefixes before its names.


# Best first: an average of the weights is what was evaluated.
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")


WRAPPER_KEYS = (*EMA_KEYS, "state_dict", "model_state_dict", "model", "net", "params", "module")


MAX_NESTING = 4  # wrappers around wrappers; a file may also hold itself


# Of distributed and compiled modules, and of the attributes in which training code likes to keep its network
MODULE_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")


def unwrap_state_dict(content: Any, path: Path) -> Checkpoint:
    """The tensors by name inside what training scripts save: {"state_dict": …, "epoch": …}.

    Raises ``ValueError`` where there are none, or one that is more than an array of numbers.
    """
    found = _find_state_dict(content, ())
    if found is None:
        raise ValueError(f"{path}: no tensors by name in it")
    tensors, keys = found
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout is not torch.strided:
            raise ValueError(f"{path}: {name} is no plain array of numbers, but quantised, sparse, complex or hollow")
    averaged = any(key in EMA_KEYS for key in keys)
    return Checkpoint(tensors, notes=(f"the averaged weights are taken, {'.'.join(keys)}",) if averaged else ())


def strip_prefixes(checkpoint: Checkpoint) -> Checkpoint:
    """The same without the prefixes that *all* names carry."""
    tensors = checkpoint.tensors
    while tensors and (
        prefix := next((one for one in MODULE_PREFIXES if all(n.startswith(one) for n in tensors)), None)
    ):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return checkpoint if tensors is checkpoint.tensors else replace(checkpoint, tensors=tensors)


def _find_state_dict(content: Any, keys: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """The best tensors by name in ``content``, and the keys under which they lie."""
    if not isinstance(content, Mapping) or not content or len(keys) > MAX_NESTING:
        return None
    for wrapper in WRAPPER_KEYS:
        if found := _find_state_dict(content.get(wrapper), (*keys, wrapper)):
            return found
    if not all(isinstance(value, Tensor) for value in content.values()):
        return None
    # torch's AveragedModel counts its updates beside the weights
    return {str(name): tensor for name, tensor in content.items() if name != "n_averaged"}, keys
