"""Demands of a config on this machine; only training makes them, for its agent can be evaluated anywhere."""

from __future__ import annotations

from itertools import count

import torch
from stable_baselines3.common.utils import get_device

from mtrl_transfer.agents.mtsac.compiling import compiler, has_compiler
from mtrl_transfer.agents.mtsac.roles import role_combiners
from mtrl_transfer.agents.runs.build import combiner_kwargs
from mtrl_transfer.agents.runs.config.schema import RunConfig


def device_problems(config: RunConfig) -> list[str]:
    """Problem of a device that this machine does not have."""
    name = config.agent.device
    if is_here(name):
        return []
    return [f"agent.device={name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use auto or cpu"]


def is_here(name: str) -> bool:
    """Return True if this machine has the device."""
    if name == "auto":
        return True
    device = torch.device(name)
    return device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()


def device_here(name: str) -> str:
    """The device, or ``auto`` where this machine does not have it."""
    return name if is_here(name) else "auto"


def cuda_graph_problems(config: RunConfig) -> list[str]:
    """Problem of capturing updates here."""
    if not config.agent.cuda_graph:
        return []
    if get_device(config.agent.device).type != "cuda":
        return ["agent.cuda_graph=true needs a CUDA device, and this run would be on the CPU: leave it false"]
    combiners = role_combiners(config.combiner.name, combiner_kwargs(config.combiner), count())
    if all(combiner.sync_free for combiner in combiners.values()):
        return []
    return [
        f"agent.cuda_graph=true: combiner {config.combiner.label}, as it is set, cannot be captured; leave it false"
    ]


def compile_problems(config: RunConfig) -> list[str]:
    """Problem of compiling updates here."""
    on_cpu = get_device(config.agent.device).type == "cpu"
    if config.agent.compile is not True or not on_cpu or has_compiler():
        return []
    return [f"agent.compile=true needs a C++ compiler, and {compiler()} is not there: install it, or set auto or false"]
