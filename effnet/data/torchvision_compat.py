"""torchvision's transforms beside a torch for which its compiled operators do not load.

The wheel on the package index is built for CUDA. Beside a CPU build of torch its operator library is not loaded, and
``import torchvision`` then fails at the fake kernels of two undeclared operators. The transforms are pure Python and
need neither: declaring the two schemas first, and only if they are missing, makes the import work.
"""

from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import torch


def import_torchvision(module: str, purpose: str) -> Any:
    """Return ``torchvision.MODULE``. Raises ``ImportError`` with the ``purpose`` if torchvision is not installed."""
    declare_operators()
    try:
        return import_module(f"torchvision.{module}")
    except ImportError as error:
        raise ImportError(f'{purpose} requires torchvision ({error}): pip install "effnet[train]"') from None


def declare_operators() -> None:
    """Declare torchvision's operators if its compiled library does not load; call this before importing torchvision."""
    if not _operators_load():
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)


def _operators_load() -> bool:
    """True too if torchvision is not installed."""
    spec = find_spec("torchvision")
    if spec is None or spec.submodule_search_locations is None:
        return True
    library = PathFinder.find_spec("_C", list(spec.submodule_search_locations))
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
