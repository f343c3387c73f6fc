"""Policies and parameters in archives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from mtrl_transfer.agents.storage.archive import Target, box_from_json, box_to_json
from mtrl_transfer.agents.storage.archive_checks import blamed_on, check_parameters, check_widths

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy

Policy = TypeVar("Policy", bound="MultiTaskPolicy")

_COMPILED = "_orig_mod."
"""Added by ``torch.compile`` to names of parameters."""


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """State of a module under the names that it has without ``torch.compile``."""
    return {name.replace(_COMPILED, ""): value for name, value in module.state_dict().items()}


def class_of(module: nn.Module) -> str:
    """Name of a module's class, that of the original for one that ``torch.compile`` made."""
    return type(getattr(module, "_orig_mod", module)).__name__


def usable_device(device: torch.device | str) -> torch.device:
    """SB3's meaning of a device (``auto``), after a first tensor on it.

    Raises:
        ValueError: naming the device, if it cannot be used here.
    """
    try:
        return torch.empty(0, device=get_device(device)).device
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise ValueError(f"device={str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error


def policy_to_archive(policy: MultiTaskPolicy) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON-able data and named tensors of a policy."""
    arguments = policy._get_constructor_parameters()
    data = {
        "kind": "policy",
        "observation_space": box_to_json(arguments.pop("observation_space")),
        "action_space": box_to_json(arguments.pop("action_space")),
        "arguments": {name: value for name, value in arguments.items() if name != "lr_schedule"},
    }
    return data, parameters_of(policy)


def policy_from_archive(
    cls: type[Policy], path: Target, data: dict[str, Any], tensors: dict[str, Tensor], device: torch.device | str
) -> Policy:
    """A policy as `policy_to_archive` described it.

    Raises:
        ValueError: if the archive describes none (``path`` is named), or if the device cannot be used.
    """
    device = usable_device(device)
    if data.get("kind") != "policy":
        raise ValueError(f"{path} holds an agent and not a policy alone: use MTSAC.load(...).policy")
    with blamed_on(f"{path} is damaged, or no policy of {cls.__name__}"):
        arguments = data["arguments"]
        check_widths(arguments, tensors)
        check_parameters(tensors)
        spaces = {name: box_from_json(data[name]) for name in ("observation_space", "action_space")}
        policy = cls(**spaces, lr_schedule=cls._dummy_schedule, **arguments)
        policy.load_state_dict(tensors)
    return policy.to(device)
