"""Random streams that go on where they were saved."""

from __future__ import annotations

import torch
from torch import Tensor


def restore_generator(generator: torch.Generator, saved: Tensor) -> None:
    """Continue from a state, as bytes; one of another kind of device, whose stream cannot go on here, is a seed."""
    saved = saved.cpu()
    if saved.numel() == generator.get_state().numel():
        generator.set_state(saved)
    else:
        generator.manual_seed(int.from_bytes(saved.flatten()[:8].numpy().tobytes(), "little") % 2**63)
