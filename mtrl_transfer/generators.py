"""Random streams that continue from a saved state."""

from __future__ import annotations

import torch
from torch import Tensor


def restore_generator(generator: torch.Generator, saved: Tensor) -> None:
    """Restore a generator. A state from another device type seeds it instead."""
    saved = saved.cpu()
    if saved.numel() == generator.get_state().numel():
        generator.set_state(saved)
    else:
        generator.manual_seed(int.from_bytes(saved.flatten()[:8].numpy().tobytes(), "little") % 2**63)
