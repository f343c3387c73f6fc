"""A run that is killed with SIGKILL at random points ends as one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from same_runs import assert_same_run, events
from short_runs import Run, arguments

from mtrl_transfer.agents.runs.checkpoint.checkpoints import newest

ROOT = Path(__file__).parents[3]
KILLS = 2
OVERRIDES = (
    "total_timesteps=900",
    "checkpoint.every=60",
    "log.record_every=11",
    "log.figures_every=null",
    "agent.buffer_size=900",
    "agent.reward_scaling=max_return",
)


def start(line: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, ROOT / "scripts" / "train.py", *line], stdout=subprocess.DEVNULL)


def kill_after_progress(process: subprocess.Popen, folder: Path, seconds: float) -> None:
    """Wait for a checkpoint of this process, then a random while."""
    before = newest_step(folder)
    while newest_step(folder) == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def newest_step(folder: Path) -> int:
    there = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]
    return max(there, default=0)


@pytest.mark.slow
def test_kill_9(tmp_path: Path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert start(arguments(whole, *OVERRIDES)).wait() == 0
    chance = random.Random(0)
    line, resumed = arguments(folder, *OVERRIDES), [str(folder / "config.yaml"), "resume=true"]
    for _ in range(KILLS):
        kill_after_progress(start(line), folder, chance.uniform(0, 0.5))
        if newest(folder) is None:
            shutil.rmtree(folder)
        else:
            line = resumed
    assert start(line).wait() == 0
    assert_same_run(Run(whole), Run(folder))
    seen = [(step, tag) for step, tag, _ in events(folder)]
    assert len(seen) == len(set(seen))
