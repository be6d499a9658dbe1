"""torchvision's transforms beside a torch for which its compiled operators do not load.

The wheel on the package index is built for CUDA. Beside a CPU build of torch its operator library is not loaded, and
``import torchvision`` then fails at the fake kernels of two undeclared operators. The transforms are pure Python and
need neither: declaring the two schemas first, and only if they are missing, makes the import work.
"""

from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


def import_transforms() -> Any:
    """Import ``torchvision.transforms.v2``. Raises ``ImportError`` if torchvision is not installed."""
    declare_operators()
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise ImportError(f'augmentation requires torchvision ({error}): pip install "effnet[train]"') from None
    return v2


def declare_operators() -> None:
    """Declare torchvision's operators if its compiled library does not load; call this before importing torchvision."""
    if not _operators_load():
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)


def _operators_load() -> bool:
    """Return whether torchvision's compiled operators load beside this torch, or torchvision is not installed."""
    spec = find_spec("torchvision")
    if spec is None or spec.submodule_search_locations is None:
        return True
    library = PathFinder.find_spec("_C", list(spec.submodule_search_locations))
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(Path(library.origin))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
