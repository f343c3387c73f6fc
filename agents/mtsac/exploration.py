"""Exploration noise that is correlated in time."""

from __future__ import annotations

from typing import Any

import numpy as np


class CorrelatedNoise:
    """Standard normal noise of which successive draws correlate: a stationary autoregressive process of order 1.

    Independent noise makes a hand tremble where it is; correlated noise carries it through its workspace, and leaves
    each single action's distribution, and so its entropy, as it was (compare Eberhard et al., *Pink Noise Is All You
    Need*, ICLR 2023).

    Args:
        shape: of a draw.
        correlation: of successive draws, in [0, 1).
        seed: seed of the noise's generator.
    """

    def __init__(self, shape: tuple[int, ...], correlation: float, seed: int) -> None:
        self.correlation = correlation
        self.generator = np.random.default_rng(seed)
        self.last = self.generator.standard_normal(shape)

    @classmethod
    def of(cls, shape: tuple[int, ...], correlation: float, seed: int) -> CorrelatedNoise | None:
        """Noise of the given correlation; None where it is 0."""
        return cls(shape, correlation, seed) if correlation else None

    def draw(self) -> np.ndarray:
        """The next noise, float32 of the given shape."""
        fresh = self.generator.standard_normal(self.last.shape)
        self.last = self.correlation * self.last + np.sqrt(1.0 - self.correlation**2) * fresh
        return self.last.astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """State for a bit-exact continuation."""
        return {"last": self.last, "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.last, self.generator.bit_generator.state = state["last"], state["generator"]
