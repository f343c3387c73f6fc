"""``env.worker_timeout`` reaches the workers of the training's environments and of the evaluation's."""

from __future__ import annotations

from contextlib import closing

from mtrl_transfer.agents.runs.build import evaluation_env, training_env
from mtrl_transfer.agents.runs.config.loading import load_config


def test_it_reaches_them():
    config = load_config("pendulums", ["env.n_procs=2", "env.worker_timeout=1.5"])
    for make in (training_env, lambda of: evaluation_env(of.env, "train", 0)):
        with closing(make(config)) as env:
            assert [shard.process._timeout for shard in env._shards[1:]] == [1.5]
