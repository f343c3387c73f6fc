"""States of NumPy generators as JSON-able values."""

from __future__ import annotations

from typing import Any

import numpy as np


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """Where a stream is; whole numbers and strings only."""
    state = dict(generator.bit_generator.state)
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"only PCG64 generators are stored; this one is {state['bit_generator']}")
    return state


def restored_generator(state: dict[str, Any]) -> np.random.Generator:
    """A generator that goes on from `generator_state`."""
    bits = np.random.PCG64()
    bits.state = state  # type: ignore[assignment]
    return np.random.Generator(bits)
