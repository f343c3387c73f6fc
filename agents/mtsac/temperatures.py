"""The weight of entropy in each task's objective: SAC's temperature, which stable-baselines3 calls ``ent_coef``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from mtrl_transfer.agents.declarations import Float, explained


def _starts_well(value: float | str) -> float | str:
    if isinstance(value, str) and not 0 < _start(value) < math.inf:
        raise ValueError
    return value


def _start(ent_coef: float | str) -> float:
    """The temperature at the beginning: 1 for ``auto``, as in stable-baselines3."""
    return float(ent_coef.removeprefix("auto_").replace("auto", "1")) if isinstance(ent_coef, str) else ent_coef


EntCoef = Annotated[
    Annotated[Float, Field(ge=0)] | Annotated[str, Field(pattern="^auto(_.+)?$"), AfterValidator(_starts_well)],
    explained("should be a fixed number of at least 0, 'auto', or 'auto_' and a positive first value: 'auto_0.003'"),
]


class Temperatures:
    """Entropy coefficients ``alpha_t`` of all tasks, trained towards a target entropy or fixed.

    Adam works entry by entry, so the tasks' temperatures do not mix.

    Args:
        ent_coef: a fixed number, or ``"auto"`` or ``"auto_0.1"``: trained, starting at 1 or 0.1.
        target_entropy: of each task, in nats.
        learning_rate: of Adam.
        device: where they live.

    Attributes:
        log_alpha: ``[T]``.
        optimizer: trains them; None where they are fixed.
    """

    def __init__(
        self, ent_coef: float | str, target_entropy: Sequence[float], learning_rate: float, device: torch.device
    ) -> None:
        self.target_entropy = torch.tensor(target_entropy, device=device)
        start = _start(ent_coef)
        log = math.log(start) if start else -math.inf
        self.log_alpha = torch.nn.Parameter(torch.full_like(self.target_entropy, log))
        self.optimizer: torch.optim.Optimizer | None = None
        if isinstance(ent_coef, str):
            self.optimizer = torch.optim.Adam([self.log_alpha], lr=learning_rate, fused=True)

    @property
    def alphas(self) -> Tensor:
        """``[T, 1]``, detached."""
        return self.log_alpha.detach().exp().unsqueeze(1)

    def update(self, log_probs: Tensor) -> None:
        """Take one step of ``log alpha`` along ``E[log pi] + target entropy``, for ``log_probs [T, B]``.

        A task whose log probabilities are not finite keeps its temperature.
        """
        if self.optimizer is None:
            return
        excess = log_probs.detach().mean(dim=1) + self.target_entropy
        self.log_alpha.grad = torch.where(excess.isfinite(), -excess, 0)
        self.optimizer.step()
