"""Settings of torch that hold for a whole process, set for one piece of work and put back."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
KEPT_BYTES = 1 << 30
"""Blocks of up to this size are reused, and that much free memory is kept."""


@contextlib.contextmanager
def torch_settings(matmul_precision: str | None = None, threads: int | None = None) -> Iterator[None]:
    """Set precision and threads within a ``with`` block, and call :func:`keep_freed_memory`.

    Args:
        matmul_precision: for ``torch.set_float32_matmul_precision``; None leaves it.
        threads: for ``torch.set_num_threads``; None leaves it.
    """
    keep_freed_memory()
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        if matmul_precision is not None:
            torch.set_float32_matmul_precision(matmul_precision)
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


@functools.cache
def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of returning it to the system; glibc only.

    By default glibc maps large blocks anew at each allocation. An update allocates the same blocks every time, and the
    system then clears every page of them again, which may take as long as the update itself. Results do not change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        _ = mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) or mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most before glibc 2.35
