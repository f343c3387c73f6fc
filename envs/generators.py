"""States of NumPy generators as JSON-able values."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_storable(generator: object) -> bool:
    """Return True for generators of gymnasium's kind; an environment's generator can be any object."""
    return isinstance(generator, np.random.Generator) and isinstance(generator.bit_generator, np.random.PCG64)


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """Return the state of a stream: whole numbers and strings only."""
    if not is_storable(generator):
        raise ValueError(f"only PCG64 generators are stored; this one is {generator!r}")
    return dict(generator.bit_generator.state)


def restored_generator(state: dict[str, Any]) -> np.random.Generator:
    """Return a generator that goes on from `generator_state`."""
    bits = np.random.PCG64()
    bits.state = state  # type: ignore[assignment]
    return np.random.Generator(bits)
