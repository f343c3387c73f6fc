"""The Ray engine against a real local cluster, with a worker killed in mid-run."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from planned_runs import planned
from rich.console import Console

from mtrl_transfer.agents.runs.compare.engine import EngineConfig, run_all
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.outcome import read_metrics

PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from planned_runs import planned
from ray.cluster_utils import Cluster
from rich.console import Console
from mtrl_transfer.agents.runs.compare.engine import EngineConfig, run_all
from mtrl_transfer.agents.runs.compare.planned import PlannedRun

folder = Path({folder!r})
bad = planned(folder, "bad")
agent = bad.config.agent.model_copy(update={{"device": "cuda:99"}})
bad = PlannedRun("bad", bad.config.model_copy(update={{"agent": agent}}), bad.run_dir)
runs = [bad, planned(folder, "killed", "total_timesteps=1500"), planned(folder, "quiet", "combiner.name=mean")]
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
results = run_all(runs, EngineConfig(engine="ray", address=cluster.address), Console(file=sys.stderr))
print(json.dumps({{result.label: result.error for result in results}}))
cluster.shutdown()
"""


def worker(log: Path) -> psutil.Process | None:
    """The Ray worker that writes a run's log."""
    for process in psutil.process_iter(["open_files"]):
        if str(log) in [file.path for file in process.info["open_files"] or []]:
            return process
    return None


@pytest.mark.slow
def test_runs_on_a_cluster_survive_the_death_of_a_worker(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is an optional extra: pip install 'mtrl-transfer[ray]'")
    program = PROGRAM.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    killed = planned(tmp_path, "killed").run_dir
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as engine:
        while not (killed / "checkpoints" / "150").is_dir():
            assert engine.poll() is None, engine.stderr.read()
            time.sleep(0.02)
        found = worker(tmp_path / "killed.log")
        assert found is not None
        found.send_signal(signal.SIGKILL)
        told, _ = engine.communicate()
    assert engine.returncode == 0
    errors = json.loads(told.splitlines()[-1])
    assert (errors["killed"], errors["quiet"]) == (None, None)
    assert "agent.device='cuda:99'" in errors["bad"]
    for label, total in (("killed", 1500), ("quiet", 600)):
        folder = tmp_path / label
        assert json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["step"] == total
        assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")[0]] == list(range(150, total + 1, 150))
    log = (tmp_path / "killed.log").read_text(encoding="utf-8")
    assert log.count("Run folder:") == 2  # begun twice, the second time from a checkpoint


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def absent(name: str, *arguments: object, **named: object):
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'mtrl-transfer\[ray\]'"):
        run_all([planned(tmp_path, "a")], EngineConfig(engine="ray"), Console(quiet=True))
