"""``env.worker_timeout`` reaches the workers of the training's environments and of the evaluation's."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.runs.build import evaluation_env, training_env
from mtrl_transfer.agents.runs.config.loading import load_config

SMALL = ["env.id=[reach-v3,push-v3]", "env.n_goals=1", "env.n_procs=2", "agent.batch_size=320"]
SMALL += ["evaluation.n_goals=1", "evaluation.final_n_goals=1", "env.worker_timeout=1.5"]


def stop_the_worker(env: VecEnv) -> None:
    env.reset()
    os.kill(env._shards[1].process.pid, signal.SIGSTOP)
    with pytest.warns(UserWarning, match=r"push-v3 has not answered for 1\.5 s; another one is started"):
        env.step(np.zeros((2, 4), np.float32))
    env.close()


def test_it_reaches_them():
    config = load_config("mt10_quick", SMALL)
    stop_the_worker(training_env(config))
    stop_the_worker(evaluation_env(config.env, "train", 0))
