"""For the whole suite: what must hold before anything else is imported or run."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from effnet.data.torchvision_compat import declare_operators

# No published weights are found, cached or downloaded: a test that wants some makes a place of its own for them.
_NOWHERE = Path(tempfile.gettempdir()) / f"effnet-tests-{os.getpid()}"
os.environ |= {"EFFNET_OFFLINE": "1", "EFFNET_HOME": str(_NOWHERE), "HF_HUB_CACHE": str(_NOWHERE / "hub")}

declare_operators()  # timm imports torchvision
torch.set_num_threads(1)  # these networks are small: threads that wait for each other take longer than one alone


@pytest.fixture
def unburdened() -> Iterator[None]:
    """For a test that takes its own time: collecting what other tests have left is not counted in."""
    gc.freeze()
    yield
    gc.unfreeze()
