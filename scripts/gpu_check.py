"""Check and measure the library on a GPU, in one command of under seven minutes.

``scripts/gpu_check.py [device=cuda] [out=results/gpu] [rounds=30] [steps=12000]``

Runs the tests marked ``cuda``, moves an agent between devices, looks for host synchronisation in an update, times
updates eager, compiled and as CUDA graphs, and trains the published setting for a moment. Writes ``gpu.json`` and
``gpu.md``. It needs no network. With ``device=cpu`` it measures the CPU and leaves out what only a GPU can do.
"""

from __future__ import annotations

import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.rows import UpdateOptions, random_agent
from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.declarations import Count, Section
from mtrl_transfer.agents.runs.cli import run_options
from mtrl_transfer.agents.runs.config.loading import section
from mtrl_transfer.agents.runs.protocol import package_versions
from mtrl_transfer.envs.vec_env import available_cores

ROOT = Path(__file__).parents[1]
SIZES = {
    "256x3, LayerNorm, 32 rows": UpdateOptions(rows=32, hidden=(256, 256, 256), layer_norm=True),
    "400x3, 128 rows": UpdateOptions(),
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("mean", {}),
    "PCGrad": ("pcgrad", {}),
    "transference, lookahead gradient": ("transference", {"measure": "lookahead_gradient"}),
    "transference, exact on 32 rows": ("transference", {"measure": {"name": "exact", "rows": 32}}),
}
COMPILED = ("plain",)
"""Methods whose updates are compiled, too; task gradients are not."""


class Options(Section):
    """Options of the check."""

    device: str = "cuda"
    """Device to check."""
    out: str = "results/gpu"
    """Folder for ``gpu.json`` and ``gpu.md``."""
    rounds: Count = 30
    """Timed updates of each row."""
    steps: Count = 12_000
    """Transitions of each training run, 2,000 of them random play."""


def check(overrides: Sequence[str], console: Console) -> Path:
    """Run all parts and write their results; a part that fails is recorded with its error, and the others go on."""
    options = section(Options, overrides)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine(options.device)}
    parts: dict[str, Callable[[Options], Any]] = {
        "tests": tests,
        "moved": moved,
        "synchronisation": synchronisation,
        "updates": updates,
        "training": training,
    }
    for name, part in parts.items():
        console.print(f"{name} ...", highlight=False)
        start = time.perf_counter()
        try:
            found[name] = part(options)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        found[name]["seconds"] = round(time.perf_counter() - start, 1)
        (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(markdown(found), encoding="utf-8")
    console.print(f"Written to {folder}", highlight=False)
    return folder


def machine(device: str) -> dict[str, Any]:
    """Devices and versions."""
    gpu = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else None
    return {"gpu": gpu, "cuda": torch.version.cuda, "cores": available_cores(), "python": platform.python_version()} | {
        "versions": package_versions()
    }


def tests(options: Options) -> dict[str, Any]:
    """Outcome of the tests marked ``cuda``; they skip themselves without a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "--durations=0", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    return {"exit code": done.returncode, "failed": failed, "last": lines[-1:]}


def moved(options: Options) -> dict[str, Any]:
    """True for each way between the devices in which a saved agent keeps its deterministic actions."""
    same = {}
    for there, here in ((options.device, "cpu"), ("cpu", options.device)):
        agent = random_agent(SIZES["256x3, LayerNorm, 32 rows"], "mean", {}, device=there)
        file = io.BytesIO()
        agent.save(file)
        file.seek(0)
        loaded = MTSAC.load(file, device=here)
        rows = agent.replay_buffer.sample(agent.batch_size).observations.flatten(0, 1).cpu()
        one_hot = torch.eye(agent.n_tasks).repeat_interleave(len(rows) // agent.n_tasks, dim=0)
        observations = torch.cat([rows, one_hot], dim=1).numpy()
        saved, restored = (one.predict(observations, deterministic=True)[0] for one in (agent, loaded))
        same[f"{there} to {here}"] = bool(abs(saved - restored).max() < 1e-4)
    return same


def synchronisation(options: Options) -> dict[str, Any]:
    """The first host synchronisation of an update of each method; None where it never waits for the device."""
    if torch.device(options.device).type != "cuda":
        return {"left out": "needs a GPU"}
    found = {}
    for name, (combiner, settings) in METHODS.items():
        agent = random_agent(SIZES["256x3, LayerNorm, 32 rows"], combiner, settings, device=options.device)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            agent.train(1, agent.batch_size)
            found[name] = None
        except RuntimeError as error:
            found[name] = str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def updates(options: Options) -> dict[str, Any]:
    """Milliseconds of an update (median), its ratio to plain eager, and peak memory, by size, method and way."""
    on_gpu = torch.device(options.device).type == "cuda"
    table: dict[str, Any] = {}
    for size, settings in SIZES.items():
        rows = table[size] = {}
        for name, method in METHODS.items():
            ways = ["eager", *(["CUDA graph"] if on_gpu else []), *(["compiled"] if name in COMPILED else [])]
            for way in ways:
                try:
                    rows[f"{name}, {way}"] = _timed(settings, method, options, way)
                except Exception as error:
                    rows[f"{name}, {way}"] = {"error": f"{type(error).__name__}: {error}"}
        plain = rows["plain, eager"].get("ms")
        for row in rows.values():
            if plain and "ms" in row:
                row["ratio to plain, eager"] = round(row["ms"] / plain, 2)
    return table


def _timed(size: UpdateOptions, method: tuple[str, dict[str, Any]], options: Options, way: str) -> dict[str, float]:
    agent = random_agent(size, *method, device=options.device)
    agent.learner.record(way == "CUDA graph")
    agent.learner.compile(size.rows if way == "compiled" else None)
    on_gpu = torch.device(options.device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(8 + options.rounds):  # the first compiles; graphs are captured after a few
        start = time.perf_counter()
        agent.train(1, agent.batch_size)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    megabytes = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else float("nan")
    return {"ms": round(1e3 * statistics.median(times[8:]), 2), "peak MB": round(megabytes, 1)}


def training(options: Options) -> dict[str, Any]:
    """Transitions a second of the published setting under transference, environments included, after the warm-up."""
    graphs = ["false", "true"] if torch.device(options.device).type == "cuda" else ["false"]
    rates: dict[str, Any] = {}
    for graph in graphs:
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "run_dir": f"{folder}/run",
                "total_timesteps": options.steps,
                "agent.learning_starts": 2_000,
                "agent.device": options.device,
                "agent.cuda_graph": graph,
                "env.n_goals": 2,
                "env.n_procs": max(available_cores() - 1, 1),
                "evaluation.every": "null",
                "evaluation.n_goals": 1,
                "evaluation.final_n_goals": 1,
                "log.progress": "false",
                "log.figures_every": "null",
            }
            train = [sys.executable, str(ROOT / "scripts" / "train.py"), "mt10_transference"]
            train += [f"{key}={value}" for key, value in settings.items()]
            done = subprocess.run(train, capture_output=True, text=True, check=False)
            if done.returncode:
                rates[f"cuda_graph={graph}"] = {"error": done.stderr.strip()[-500:]}
                continue
            seconds = json.loads(Path(folder, "run", "evaluation.json").read_text(encoding="utf-8"))["seconds"]
        busy = seconds["environment"] + seconds["update"] + seconds["transference"]
        rates[f"cuda_graph={graph}"] = {"transitions a second": round(options.steps / busy, 1), "by part": seconds}
    return rates


def markdown(found: dict[str, Any]) -> str:
    """The results as one page."""
    title, columns = found["machine"]["gpu"] or "CPU", ("ms", "ratio to plain, eager", "peak MB")
    lines = [f"# {title}", "", f"Command: `scripts/gpu_check.py`. {_flat(found['machine'])}", ""]
    lines += [f"- {name}: {_flat(found[name])}" for name in ("tests", "moved", "synchronisation")]
    for size, rows in found["updates"].items():
        if isinstance(rows, dict):
            lines += ["", f"## {size}", "", f"| update | {' | '.join(columns)} |", "| --- | --- | --- | --- |"]
            for name, row in rows.items():
                cells = [str(row.get(column, row.get("error", ""))) for column in columns]
                lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Training, `mt10_transference`", ""]
    lines += [f"- {name}: {_flat(rate)}" for name, rate in found["training"].items() if isinstance(rate, dict)]
    return "\n".join(lines) + "\n"


def _flat(values: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in values.items())


def gpu_check(arguments: Sequence[str] | None = None) -> int:
    """Run the check: ``key=value ...``. Return the exit code."""
    about = "Check and measure the library on a GPU."
    return run_options("gpu_check", about, "e.g. device=cuda:1", check, arguments)


if __name__ == "__main__":  # worker processes import this file
    raise SystemExit(gpu_check())
