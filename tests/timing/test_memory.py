"""Freed memory is retained inside the context and returned at its end."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from effnet.timing import run_in_subprocess
from effnet.timing.memory import retain_freed_memory

MEGABYTES = 64  # above 32, up to which glibc learns to keep blocks by itself


def faults() -> int:
    """Page faults while a large block is allocated and freed ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(MEGABYTES * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def both() -> tuple[int, int]:
    default = faults()
    with retain_freed_memory():
        faults()  # until the heap has grown
        return faults(), default


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")
def test_blocks_are_reused_without_page_faults() -> None:
    retained, default = run_in_subprocess(both).value  # in a main thread: other threads have small heaps
    assert 3 * retained < default
