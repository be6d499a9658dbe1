"""Freed memory that is kept, and given back in the end."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from effnet.timing import run_in_subprocess
from effnet.timing.memory import retain_freed_memory

MEGABYTES = 64


def faults() -> int:
    """Pages that the system has had to find while a large block was made and freed ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(MEGABYTES * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def both() -> tuple[int, int]:
    usual = faults()
    with retain_freed_memory():
        faults()  # until there is room
        return faults(), usual


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_blocks_come_again_without_new_pages() -> None:
    kept, usual = run_in_subprocess(both).value  # the main thread's, whatever runs the tests: others have small heaps
    assert 3 * kept < usual
