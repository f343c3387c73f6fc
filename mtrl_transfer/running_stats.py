"""Statistics over updates, kept on the device until they are logged."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMeans:
    """Means of named tensors since the last flush; no host synchronisation until then.

    Sums and counts stay where they are in memory, so that additions may be captured and replayed.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add one update's ``value``, any fixed shape."""
        value = value.detach()
        if name not in self._sums:
            self._sums[name] = torch.zeros_like(value)
            self._counts[name] = torch.zeros((), dtype=torch.long, device=value.device)
        self._sums[name] += value
        self._counts[name] += 1

    def count(self, name: str) -> int:
        """Return the number of values of ``name`` added since the last flush; waits for the device."""
        return int(self._counts.get(name, 0))

    def mean(self, name: str) -> Tensor:
        """Mean of the values of ``name`` since the last flush; nan if there were none."""
        return self._sums[name] / self._counts[name]

    def flush(self) -> dict[str, Tensor]:
        """Return the means by name on the CPU, and start again."""
        means = {name: self.mean(name).cpu() for name, count in self._counts.items() if count}
        for tensor in (*self._sums.values(), *self._counts.values()):
            tensor.zero_()
        return means

    def state_dict(self) -> dict[str, Tensor]:
        """Sums and counts since the last flush."""
        counts = {name: count for name, count in self._counts.items() if count}
        sums = {f"sum_{name}": self._sums[name] for name in counts}
        return {**sums, **{f"count_{name}": count for name, count in counts.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        names = [key.removeprefix("sum_") for key in state if key.startswith("sum_")]
        self._sums = {name: state[f"sum_{name}"].clone() for name in names}
        self._counts = {name: state[f"count_{name}"].clone() for name in names}


class Correlation:
    """Pearson correlation of paired tensors, since the last flush and overall, from float64 sums on the device.

    Each call's entries are one event: their sums are taken together, so tasks and updates count alike. Sums stay
    where they are in memory, as those of `RunningMeans` do.
    """

    def __init__(self) -> None:
        self._window: Tensor | None = None
        self._overall: Tensor | None = None

    def add(self, x: Tensor, y: Tensor, valid: Tensor) -> None:
        """Add pairs ``x, y`` (any equal shape); they do not count if ``valid []`` is false."""
        x, y = x.double().flatten(), y.double().flatten()
        moments = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(dim=1)
        if self._window is None:
            self._window = torch.zeros_like(moments)
        self._window += torch.where(valid, moments, 0.0)

    def flush(self) -> float:
        """Return the correlation since the last flush (nan without any pairs), and start again."""
        if self._window is None:
            return float("nan")
        window = self._window.clone()
        self._window.zero_()
        self._overall = window if self._overall is None else self._overall + window
        return _pearson(window)

    def overall(self) -> float:
        """Return the correlation over everything added; nan if nothing was."""
        parts = [part for part in (self._overall, self._window) if part is not None]
        return _pearson(torch.stack(parts).sum(dim=0)) if parts else float("nan")

    def state_dict(self) -> dict[str, Tensor]:
        """Sums since the last flush and before it."""
        parts = {"window": self._window, "overall": self._overall}
        return {name: part for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        self._window, self._overall = (state[name].clone() if name in state else None for name in ("window", "overall"))


def _pearson(moments: Tensor) -> float:
    n, x, y, xx, yy, xy = moments.tolist()
    if n < 2:
        return float("nan")
    variance_x, variance_y = xx - x * x / n, yy - y * y / n
    if variance_x <= 0 or variance_y <= 0:
        return float("nan")
    return float((xy - x * y / n) / (variance_x * variance_y) ** 0.5)
