"""Settings and fixtures of the whole test suite."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from effnet.data.torchvision_compat import declare_operators

# No weights are found in a cache or downloaded; tests that need some use a cache of their own
_EMPTY_CACHE = Path(tempfile.gettempdir()) / f"effnet-tests-{os.getpid()}"
# Processes that tests start compute with one thread: with several each waits for the others, which on a busy machine
# takes ten times as long
os.environ["OMP_NUM_THREADS"] = "1"
os.environ |= {"EFFNET_OFFLINE": "1", "EFFNET_HOME": str(_EMPTY_CACHE), "HF_HUB_CACHE": str(_EMPTY_CACHE / "hub")}

declare_operators()  # timm imports torchvision
torch.set_num_threads(1)  # several threads are slower for networks this small

# torch reads oneDNN's limit at its first convolution. Then it is withdrawn: OpenVINO chooses kernels by the CPU, oneDNN
# within it builds them by the limit, and the process ends. Kept under another name for the other test processes.
if limit := os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("EFFNET_TEST_CPU_ISA"):
    os.environ |= {"ONEDNN_MAX_CPU_ISA": limit, "EFFNET_TEST_CPU_ISA": limit}
    torch.nn.functional.conv2d(torch.zeros(16, 16, 32, 32), torch.zeros(16, 16, 3, 3))
    del os.environ["ONEDNN_MAX_CPU_ISA"]


@pytest.fixture
def frozen_gc() -> Iterator[None]:
    """Exclude the objects of other tests from garbage collection, for tests that measure time."""
    gc.freeze()
    yield
    gc.unfreeze()
