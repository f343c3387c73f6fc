"""The library beside a user's own folders ``envs`` and ``agents``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import agents
import envs
from envs.maze import SIZE

if __name__ == "__main__":
    from mtrl_transfer.agents import MTSAC
    from mtrl_transfer.envs import make_vec_env

    env = make_vec_env({"a": envs.Walk, "b": envs.Walk}, n_procs=2)
    model = MTSAC("MultiTaskPolicy", env, batch_size=8, learning_starts=4, policy_kwargs={"net_arch": [4]})
    model.learn(12)
    env.close()
    print(SIZE, agents.MINE, model.num_timesteps, envs.__file__)
"""
ENVS = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Walk(gym.Env):
    observation_space, action_space = spaces.Box(-9, 9, (1,)), spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}
"""


@pytest.mark.slow
def test_own_envs_and_agents_shadow_nothing(tmp_path: Path):
    files = {
        "train.py": SCRIPT,
        "envs/__init__.py": ENVS,
        "envs/maze.py": "SIZE = 3",
        "agents/__init__.py": "MINE = True",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    line, environ = [sys.executable, "train.py"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "True", "12", str(tmp_path / "envs" / "__init__.py")]
