"""PyTorch's own files, opened without running anything that is in them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights.formats.content import Content

# What training scripts wrap around the weights, best first: an average is what was evaluated.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")


def read(path: Path) -> Content:
    """The tensors of a ``.pth`` file, out of their wrappings. Raises ``ValueError`` where it holds no weights."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a plain pickle torch would say more than its refusal
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not a file of tensors only; such a file can run programs when opened, so it is left alone"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a file of weights ({error})") from None
    return Content(unwrap(content, path))


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` as PyTorch's own file."""
    with path.open("wb") as file:  # given a path, torch would write its name into the file
        torch.save(tensors, file)


def unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors inside what training scripts save: {"state_dict": …}, names with "module." before them."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: no tensors by name in it")
    tensors = {str(name): value for name, value in content.items()}
    tensors.pop("n_averaged", None)  # torch's AveragedModel counts in there
    while tensors and (prefix := next((one for one in PREFIXES if all(n.startswith(one) for n in tensors)), None)):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
