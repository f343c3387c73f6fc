"""The programs of docs/ecosystem.md run, each where its package is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "ecosystem.md"
PROGRAMS = re.findall(r"^## (.*?)$.*?^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
NEEDS = {
    "Weights & Biases": ["wandb"],
    "Optuna": ["optuna", "rl_zoo3"],
    "Videos by SB3's `VecVideoRecorder`": ["moviepy"],
    "Hugging Face Hub": ["huggingface_hub"],
}
LEAVES = {
    "Weights & Biases": ["wandb/offline-run-*", "models/*/model.zip"],
    "Videos by SB3's `VecVideoRecorder`": ["videos/*.mp4"],
}
LOCAL_HUB = """
import huggingface_hub
from mtrl_transfer.agents import MTSAC
from mtrl_transfer.envs import make_vec_env
MTSAC("MultiTaskPolicy", make_vec_env("Point-3"), buffer_size=30, policy_kwargs={"net_arch": [4]}).save("agent.zip")
huggingface_hub.hf_hub_download = lambda repo_id, filename, *, revision: filename
"""
"""A file here stands in for the hub's."""


def test_every_program_is_listed():
    assert [title for title, _ in PROGRAMS] == list(NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "program"), PROGRAMS, ids=[title for title, _ in PROGRAMS])
def test_programs_run(title: str, program: str, tmp_path: Path):
    missing = [name for name in NEEDS[title] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    text = LOCAL_HUB + program if "from_hub" in program else program
    (tmp_path / "program.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [pattern for pattern in LEAVES.get(title, []) if not list(tmp_path.glob(pattern))] == []
