"""Divisors of the decrease of a loss, so that tasks can be added up."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number
from mtrl_transfer.combiners.state import Stateful
from mtrl_transfer.context import Context


class Scale(Stateful):
    """Base class: a divisor for each task, with a running mean in the state.

    Args:
        rate: share of the newest value in the running mean.
    """

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__()
        check_number("rate", rate, 0)
        self.rate = rate

    def __call__(self, losses: Tensor, context: Context) -> Tensor:
        """Return the divisors `[T]`, given `losses [T]` before the step; a scale implements this."""
        raise NotImplementedError

    def running_mean(self, value: Tensor) -> Tensor:
        """Return the running mean `[T]`, with `value [T]` added; values that are not finite are passed over.

        It begins with the first value that is not zero: from zero it would take hundreds of updates to get there.
        """
        mean = self.state.setdefault("divisor", torch.zeros_like(value))
        value = torch.where(value.isfinite(), value, mean)
        return mean.copy_(torch.where(mean == 0, value, mean.lerp(value, self.rate)))


class Ratio(Scale):
    """`(L − L_w) / max(L, floor)`, the paper's ratio; for positive losses (Fifty et al., 2020, section 3).

    Args:
        floor: least divisor, as a fraction of the loss's running mean, so that a solved task's vanishing loss does not
            dominate.
        rate: share of the newest value in the running mean.
    """

    def __init__(self, floor: float = 0.1, rate: float = 0.01) -> None:
        super().__init__(rate)
        check_number("floor", floor, 0)
        self.floor = floor

    def check(self, signed: bool) -> None:
        """Raise `ValueError` for losses that may be negative."""
        if signed:
            raise ValueError("scale='ratio' needs positive losses and these are signed; choose 'ema' or 'auto'")

    def __call__(self, losses: Tensor, context: Context) -> Tensor:
        """Return `max(L, floor) [T]`."""
        self.check(context.signed)
        return torch.maximum(losses, self.floor * self.running_mean(losses))


class RunningMagnitude(Scale):
    """`(L − L_w) / running magnitude`, for any loss: `context.scales`, or the absolute loss.

    Args:
        rate: share of the newest value in the running mean.
    """

    def __call__(self, losses: Tensor, context: Context) -> Tensor:
        """Return the running magnitude `[T]`."""
        return self.running_mean(losses.abs() if context.scales is None else context.scales).clone()


class Automatic(Stateful):
    """`Ratio`, or `RunningMagnitude` where losses are signed."""

    def __init__(self) -> None:
        super().__init__()
        self.positive, self.signed = Ratio(), RunningMagnitude()
        self.parts = {"ratio": self.positive, "ema": self.signed}

    def __call__(self, losses: Tensor, context: Context) -> Tensor:
        """Return the divisors `[T]`, given `losses [T]` before the step."""
        return (self.signed if context.signed else self.positive)(losses, context)


SCALES = {"auto": Automatic, "ratio": Ratio, "ema": RunningMagnitude}
"""Scales by the name that configs use."""
