"""A caller's settings of torch change no test, and no run changes a caller's settings."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtrl_transfer.agents.runs import cli
from mtrl_transfer.agents.runs.torch_settings import keep_freed_memory, torch_settings

TESTS = Path(__file__).parent
TWICE = """
import sys, pytest, torch
torch.set_float32_matmul_precision("medium")
arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]
codes = [pytest.main(arguments) for _ in range(2)]
assert torch.get_float32_matmul_precision() == "medium"
raise SystemExit(max(codes))
"""


def test_settings_are_put_back_after_an_error():
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    with pytest.raises(KeyError), torch_settings("medium", threads=2):
        raise KeyError((torch.get_float32_matmul_precision(), torch.get_num_threads()))
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == before


def test_nothing_named_leaves_everything():
    with torch_settings("high", threads=3), torch_settings():
        assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == ("high", 3)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    keep_freed_memory()
    for _ in range(20):  # until there is one block with room for the alignment
        torch.ones(4 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(4 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10_000  # of 40,960 pages


def test_training_leaves_the_callers_settings(tmp_path: Path):
    arguments = ["total_timesteps=1421", "evaluation.final_n_goals=1", "log.progress=false", f"run_dir={tmp_path}/run"]
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    assert cli.train(["point", "matmul_precision=medium", "threads=2", *arguments]) == 0
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == before


@pytest.mark.slow
def test_order_sensitive_tests_pass_twice_under_medium():
    training = "test_global_state.py::test_training_leaves_the_callers_settings"
    update = "agents/test_sb3_contract.py::test_losses_and_gradients_equal_sacs"
    tests = [training, update, "agents/test_run_records.py"]
    code = [sys.executable, "-c", TWICE, *(str(TESTS / test) for test in tests)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(code, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
