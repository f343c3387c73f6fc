"""The protocol card: everything about a run, beside its config, that its figures depend on."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.utils import get_device

import mtrl_transfer
from mtrl_transfer.agents.runs.config.machine import device_here
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.torch_settings import torch_settings
from mtrl_transfer.envs.vec_env import available_cores
from mtrl_transfer.precision import product_precision

PACKAGES = ("mtrl-transfer", "torch", "stable_baselines3", "metaworld", "mujoco", "gymnasium", "numpy")


def run_protocol(
    config: RunConfig,
    environment: Mapping[str, Any],
    evaluation_horizon: int | None,
    device: str,
    compiled: bool = False,
) -> dict[str, Any]:
    """Return what a reader needs to compare this run with another.

    Args:
        config: the resolved config.
        environment: the training environments' own account (`envs.protocol_card`).
        evaluation_horizon: steps of an evaluation episode.
        device: where the agent runs.
        compiled: True if its updates are compiled.

    Returns:
        JSON-able: ``started``, ``versions``, ``commit`` (or None), ``seeds``, ``environment``, ``evaluation``,
        ``precision`` (of matrix products in updates: ``float32``, ``tf32`` or ``bf16``), ``compiled``,
        ``machine``.
    """
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "commit": commit(),
        "seeds": {"run": config.seed, "evaluation": config.evaluation.seed},
        "environment": {key: value for key, value in environment.items() if key != "versions"},
        "evaluation": {
            "goals": config.evaluation.goals,
            "horizon": evaluation_horizon,
            "episodes_per_task": config.evaluation.final_n_goals,
            "episodes_per_task_in_training": config.evaluation.n_goals,
            "policy": "deterministic",
            "success": "at any step of the episode",
            "environments": "separate from the training's",
        },
        "precision": product_precision(device),
        "compiled": compiled,
        "machine": {
            "cpu": _cpu_model(),
            "cores": available_cores(),
            "threads": torch.get_num_threads(),
            "device": device if device == "cpu" else torch.cuda.get_device_name(device),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "system": platform.platform(terse=True),
        },
    }


def precision_here(config: RunConfig) -> str:
    """Precision that matrix products of a run's updates have on this machine."""
    with torch_settings(config.matmul_precision):
        return product_precision(get_device(device_here(config.agent.device)))


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run depends on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@functools.cache
def commit() -> str | None:
    """The checkout's commit when first asked, with ``+`` where tracked files differ; None outside one of ours."""
    root = Path(mtrl_transfer.__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
