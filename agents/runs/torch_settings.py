"""Settings of torch that hold for a whole process, set for one piece of work and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def torch_settings(matmul_precision: str | None = None, threads: int | None = None) -> Iterator[None]:
    """Set precision and threads within a ``with`` block.

    Args:
        matmul_precision: for ``torch.set_float32_matmul_precision``; None leaves it.
        threads: for ``torch.set_num_threads``; None leaves it.
    """
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
