"""Float32 matrix products where rounding would decide: Gramians, lookahead and measurement.

Differences of losses are of the order of 1e-4. Products rounded to bf16 (relative error 2e-3) hide them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch

ProductPrecision = Literal["float32", "tf32", "bf16"]
EXACT = ("none", "ieee")
"""Settings of a backend that do not permit rounding."""


@contextmanager
def float32_products() -> Iterator[None]:
    """Compute float32 matrix products in float32, whatever precision is set; restore the settings at the end.

    The settings are those of `torch.set_float32_matmul_precision` and `torch.backends.*.matmul.fp32_precision`.
    They hold for the whole process, so other threads see the change too. Where products are not rounded, nothing is
    changed: on many CPUs a lower precision only selects faster float32 kernels. Takes microseconds and does not wait
    for the device. Also a decorator.
    """
    former = _settings()
    if not _rounds(*former):
        yield
        return
    for backend in _backends():
        backend.fp32_precision = "ieee"
    legacy = torch.get_float32_matmul_precision()  # it raises while the backends contradict it
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(legacy)
        for backend, value in zip(_backends(), former, strict=False):
            backend.fp32_precision = "none"  # follows the general setting
            if backend.fp32_precision != value:
                backend.fp32_precision = value


def products_are_rounded() -> bool:
    """Return whether float32 matrix products are rounded under the present settings."""
    return _rounds(*_settings())


def product_precision(device: torch.device | str) -> ProductPrecision:
    """Return the precision of float32 matrix products on a device under the present settings, found by computing some.

    Waits for the device.
    """
    if not _keeps(16, device):
        return "tf32" if _keeps(9, device) else "bf16"
    return "float32"


def _keeps(bits: int, device: torch.device | str) -> bool:
    """Return whether products keep `1 + 2^-bits`: bf16 keeps 7 bits of the fraction, tf32 keeps 10, float32 23."""
    value = 1 + 2.0**-bits
    left, right = torch.full((2, 128, 128), value, device=device), torch.ones(2, 128, 128, device=device)
    return bool((left @ right == 128 * value).all())  # float32 holds every partial sum


def _backends() -> list[Any]:
    """Settings of matrix products by backend; empty before torch 2.9, which knows only one setting for all."""
    mkldnn = getattr(torch.backends.mkldnn, "matmul", None)
    return [] if mkldnn is None else [mkldnn, torch.backends.cuda.matmul]


def _settings() -> tuple[str, str]:
    """Settings for CPU and CUDA."""
    if backends := _backends():
        cpu, cuda = (backend.fp32_precision for backend in backends)
        return cpu, cuda
    legacy = torch.get_float32_matmul_precision()
    return ("none", "none") if legacy == "highest" else (legacy, legacy)


def _rounds(cpu: str, cuda: str) -> bool:
    return (cpu not in EXACT and _cpu_rounds(cpu)) or (cuda not in EXACT and torch.cuda.is_initialized())


@cache
def _cpu_rounds(setting: str) -> bool:
    """Return whether this CPU rounds under the setting, which must be the present one."""
    return product_precision("cpu") != "float32"
