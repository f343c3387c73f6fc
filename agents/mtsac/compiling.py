"""Parts of an update through ``torch.compile``: fewer passes over memory than operations one by one take."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtrl_transfer.tasks import is_frozen

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.losses import NetworkLoss
    from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy

MOST_UNITS = 320 * 256
"""Rows of an update times width of the trunk up to which compiling was measured to pay; see ``docs/speed.md``."""


def compiler() -> str:
    """Name of the C++ compiler that torch calls."""
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def has_compiler() -> bool:
    """Return True if the C++ compiler is there."""
    return shutil.which(compiler()) is not None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function for each kind of arguments that it gets."""

    def own(*args: Any) -> Any:
        return function(*args)

    # Torch counts the kinds by code object and compiles no more than eight: each function needs one to itself.
    own.__code__ = own.__code__.replace(co_name=getattr(function, "__name__", "own"))
    return torch.compile(own, dynamic=False)


def compiling_pays(policy: MultiTaskPolicy, batch_size: int) -> bool:
    """Return True where compiled updates were measured to be faster: on a CPU, SiLU, small; and a compiler is there."""
    small = batch_size * policy.critic.width <= MOST_UNITS
    silu = policy.settings["activation_fn"] == "silu"  # torch compiles the others' gradients badly
    return policy.device.type == "cpu" and silu and small and has_compiler()


class CompiledGradients:
    """Plain gradients of a loss as one compiled graph, forward and backward.

    Task gradients are not compiled: torch 2.13 compiles those of a weight with a task axis wrongly.

    Args:
        loss: whose gradients.
        rows: of a task in a batch; others are not compiled.
    """

    def __init__(self, loss: NetworkLoss, rows: int) -> None:
        self.loss, self.rows = loss, rows
        self._mean = compiled(self._mean_gradients)

    @torch.no_grad()
    def mean(self, batch: Any, shares: Tensor | None) -> tuple[list[Tensor], Any]:
        """Return the same as `NetworkLoss.plain_gradients`, given the tasks' shares ``[T]`` in the trunk."""
        (trunk, heads), rows = self._mean(dict(self.loss.trunk), dict(self.loss.heads), batch, shares)
        return [*_trained(trunk, self.loss.trunk).values(), *_trained(heads, self.loss.heads).values()], rows

    def _mean_gradients(self, trunk: Any, heads: Any, batch: Any, shares: Tensor | None) -> Any:
        def mean_loss(trunk: Any, heads: Any) -> Any:
            rows = self.loss(batch, trunk, heads, shares)
            return rows.losses.mean(), rows

        return torch.func.grad(mean_loss, argnums=(0, 1), has_aux=True)(trunk, heads)


def _trained(gradients: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in gradients.items() if not is_frozen(parameters[name])}
