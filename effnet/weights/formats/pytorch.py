"""PyTorch's files: ``.safetensors`` (also this package's own) and ``.pth``, opened without running code in them."""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.serialization import safe_globals

from effnet.net import EfficientNet
from effnet.weights.formats import METADATA_KEY, Checkpoint


def read_safetensors(path: Path) -> Checkpoint:
    """Read tensors, memory-mapped, and header of a ``.safetensors``. Raises ``ValueError`` if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged weights file ({error})") from None


def write_safetensors(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write ``tensors`` for any reader, without our metadata."""
    save_file(tensors, path, metadata={"format": "pt"})


def write_model_file(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write this package's own file: ``tensors``, with the metadata of ``model`` in the header."""
    save_file(tensors, path, metadata={METADATA_KEY: model.metadata.to_json()})


# .pth ----------------------------------------------------------------------------------------------------------------


class _Placeholder:
    """Takes the place of any object that is not a tensor: keeps nothing and runs nothing."""

    def __new__(cls, *state: Any) -> "_Placeholder":
        return super().__new__(cls)

    def __init__(self, *state: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


# What training scripts store beside the weights: arguments, paths, metrics, dates. Names are as files spell them.
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
# Name in the file → what is used for it. The real classes are not looked up: they are neither trusted nor needed.
SAFE_GLOBALS: dict[str, Any] = {
    **dict.fromkeys(_PLACEHOLDER_TYPES.split(), _Placeholder),
    **dict.fromkeys(_DICT_TYPES.split(), dict),
    "collections.defaultdict": lambda *_: {},
}


def read_pytorch(path: Path) -> Checkpoint:
    """Read the tensors of a ``.pth``, whatever training scripts put around them.

    Raises ``ValueError`` if it contains no weights, or objects that could run code.
    """
    try:
        with warnings.catch_warnings(), safe_globals([(kind, name) for name, kind in SAFE_GLOBALS.items()]):
            warnings.simplefilter("ignore")  # torch would add a warning to its refusal of a plain pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path}: not a file of tensors only{f' (it asks for {wanted[1]})' if wanted else ''}; such a file can run "
            "code when it is opened, so it is refused. If you trust it, run torch.load(…, weights_only=False) in a "
            "sandbox and torch.save the state_dict() alone"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a weights file ({str(error).partition(chr(10))[0]})") from None
    return unwrap_state_dict(content, path)


def write_pytorch(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write ``tensors`` as a ``.pth``."""
    with path.open("wb") as file:  # given a path, torch writes its name into the file
        torch.save(tensors, file)


# What training scripts put around the weights ----------------------------------------------------------------------

# Best first: an average of the weights is what was evaluated.
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")
WRAPPER_KEYS = (*EMA_KEYS, "state_dict", "model_state_dict", "model", "net", "params", "module")
MAX_NESTING = 4  # wrappers around wrappers; a file may also contain itself
# Of distributed and compiled modules, and of the attributes in which training code often keeps its network
MODULE_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")


def unwrap_state_dict(content: Any, path: Path) -> Checkpoint:
    """Return the tensors in what training scripts save: {"state_dict": …, "epoch": …}. Raises ``ValueError``."""
    found = _find_state_dict(content, ())
    if found is None:
        raise ValueError(f"{path}: no tensors by name in it")
    tensors, keys = found
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.layout is not torch.strided:
            raise ValueError(f"{path}: {name} is quantized, sparse, complex or empty, not a plain array of numbers")
    is_average = any(key in EMA_KEYS for key in keys)
    return Checkpoint(tensors, notes=(f"using the averaged weights, {'.'.join(keys)}",) if is_average else ())


def _find_state_dict(content: Any, keys: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]] | None:
    if not isinstance(content, Mapping) or not content or len(keys) > MAX_NESTING:
        return None
    for wrapper in WRAPPER_KEYS:
        if found := _find_state_dict(content.get(wrapper), (*keys, wrapper)):
            return found
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        return None
    # torch's AveragedModel counts its updates beside the weights
    return {str(name): tensor for name, tensor in content.items() if name != "n_averaged"}, keys


def strip_prefixes(checkpoint: Checkpoint) -> Checkpoint:
    """Remove the prefixes that *all* names have."""
    tensors = checkpoint.tensors
    while tensors and (prefix := next((p for p in MODULE_PREFIXES if all(n.startswith(p) for n in tensors)), None)):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return checkpoint if tensors is checkpoint.tensors else replace(checkpoint, tensors=tensors)
