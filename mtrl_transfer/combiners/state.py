"""Running tensors of an object and of its parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor


class Stateful:
    """An object with running tensors, which stay where they are in memory.

    Attributes:
        state: tensors by name, created when first needed and then changed in place.
        parts: objects with a state that belong to this one, by name.
    """

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.parts: dict[str, Stateful] = {}

    def store(self, name: str, value: Tensor) -> Tensor:
        """Copy `value` to `state[name]`, and return that."""
        if name not in self.state:
            self.state[name] = torch.empty_like(value)
        return self.state[name].copy_(value)

    def move_to(self, device: torch.device) -> None:
        """Bring the state to `device`; a loaded one may come from another."""
        for name, value in self.state.items():
            self.state[name] = value.to(device)
        for part in self.parts.values():
            part.move_to(device)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all running tensors by name; those of a part have its name and a dot before theirs."""
        saved = {name: value.detach().clone() for name, value in self.state.items()}
        for name, part in self.parts.items():
            saved.update({f"{name}.{key}": value for key, value in part.state_dict().items()})
        return saved

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        self.state = {name: value.detach().clone() for name, value in state.items() if "." not in name}
        for name, part in self.parts.items():
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            part.load_state_dict(own)

    def __repr__(self) -> str:
        names = [name for name in inspect.signature(type(self)).parameters if name in vars(self)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"
