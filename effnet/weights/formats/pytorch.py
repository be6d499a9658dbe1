"""PyTorch's own files, opened without running anything that is in them."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from effnet.net import EfficientNet
from effnet.weights.formats.checkpoint import Checkpoint, unwrap_state_dict


class Placeholder:
    """Stands for an object that is no tensor: made in place of it, keeps nothing, runs nothing."""

    def __new__(cls, *state: Any) -> Placeholder:
        """For whatever the other would be made from."""
        return super().__new__(cls)

    def __init__(self, *state: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        """Forgets what it is told."""


def _make_dict(*default: Any) -> dict[Any, Any]:
    return {}


# What training scripts keep beside the weights: arguments, paths, scores, dates. Names are as files ask for them.
_PLACEHOLDER_TYPES = """
argparse.Namespace types.SimpleNamespace typing.Any datetime.datetime datetime.timedelta
builtins.bool builtins.dict builtins.float builtins.int builtins.list builtins.str builtins.tuple
pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib._local.PosixPath pathlib._local.WindowsPath
numpy.core.multiarray.scalar numpy._core.multiarray.scalar numpy.dtype numpy.ndarray
numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata omegaconf.base.Metadata
omegaconf.nodes.AnyNode omegaconf.nodes.StringNode omegaconf.nodes.IntegerNode omegaconf.nodes.FloatNode
omegaconf.nodes.BooleanNode omegaconf.nodes.PathNode
"""
_DICT_TYPES = """
pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict
lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
"""
# The name that a file asks for → what it gets. None of the real ones is looked up, so none is trusted or must be there.
SAFE_GLOBALS: dict[str, Any] = {
    **dict.fromkeys(_PLACEHOLDER_TYPES.split(), Placeholder),
    **dict.fromkeys(_DICT_TYPES.split(), dict),
    "collections.defaultdict": _make_dict,
}


def read_pytorch(path: Path) -> Checkpoint:
    """The tensors of a ``.pth`` file, out of their wrappings. Raises ``ValueError`` where it holds no weights."""
    try:
        with warnings.catch_warnings(), safe_globals([(taken, name) for name, taken in SAFE_GLOBALS.items()]):
            warnings.simplefilter("ignore")  # of a plain pickle torch would say more than its refusal
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path}: not a file of tensors only{f' (it asks for {asked[1]})' if asked else ''}; such a file can run "
            "programs when opened, so it is left alone: if you trust it, open it where it can do no harm, with "
            "torch.load(…, weights_only=False), and torch.save the state_dict() alone"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a file of weights ({str(error).partition(chr(10))[0]})") from None
    return unwrap_state_dict(content, path)


def write_pytorch(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` as PyTorch's own file."""
    with path.open("wb") as file:  # given a path, torch would write its name into the file
        torch.save(tensors, file)
