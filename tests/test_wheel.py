"""The wheel alone, without the checkout, trains a preset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAIN = """
import sys, mtrl_transfer
from mtrl_transfer.agents.runs.cli import train
assert mtrl_transfer.__file__.startswith(sys.argv[1]), mtrl_transfer.__file__
raise SystemExit(train(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_wheel_without_the_checkout_trains_point(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # The source distribution first, and the wheel from that.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(installed), str(wheel)], check=True)
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"bin", "mtrl_transfer"}
    assert (installed / "mtrl_transfer" / "trained" / "mt10.safetensors").is_file()
    arguments = ["point", "total_timesteps=1750", "evaluation.final_n_goals=1", "run_dir=run", "log.progress=false"]
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(installed), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        timeout=300,
    )
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["step"] == 1750
