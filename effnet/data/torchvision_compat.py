"""torchvision's transforms beside a torch for which its compiled operators do not load.

The wheel on the package index is built for CUDA. Beside a CPU build of torch its library of operators is not loaded,
and ``import torchvision`` then stops at the fake kernels of two operators that nobody declared. The transforms are
pure Python and need neither: declaring the two schemas first, and only when they are missing, lets the import work.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

OPERATOR_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_transforms() -> ModuleType:
    """``torchvision.transforms.v2``, imported safely. Raises ``ImportError`` where torchvision is not installed."""
    declare_operators()
    from torchvision.transforms import v2

    module: ModuleType = v2
    return module


def declare_operators() -> None:
    """Declares torchvision's operators where its compiled library does not load; call before importing torchvision."""
    if not _operators_load():
        for name, schema in OPERATOR_SCHEMAS.items():
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", schema)


def _operators_load() -> bool:
    """Whether torchvision's compiled operators load beside this torch (or are not there to be asked for)."""
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
