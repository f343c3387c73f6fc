"""Comparison of an uninterrupted run with one that was interrupted and continued."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from short_runs import Run
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.checkpoint.checkpoints import newest, replay_folder


def assert_same_run(one: Run, other: Run) -> None:
    """Parameters, optimizers, replay, logged scalars and records, bit for bit; clocks excepted."""
    _assert_same_tensors(agent_tensors(one), agent_tensors(other))
    _assert_same_tensors(replay(one.folder), replay(other.folder))
    assert learned(other) == learned(one)
    assert events(other.folder) == events(one.folder)
    records = "transference.records"
    assert (other.folder / records).read_bytes() == (one.folder / records).read_bytes()
    assert other.json("evaluation.json")["tasks"] == one.json("evaluation.json")["tasks"]


def agent_tensors(run: Run) -> dict[str, torch.Tensor]:
    from mtrl_transfer.agents.storage.agent_archive import agent_to_archive

    return agent_to_archive(MTSAC.load(run.folder / "agent.zip"))[1]


def replay(folder: Path) -> dict[str, torch.Tensor]:
    """All transitions that the newest checkpoint holds, in the order in which they came."""
    checkpoint = newest(folder)
    assert checkpoint is not None
    files = [load_file(replay_folder(folder) / segment.file) for segment in checkpoint.manifest.segments]
    assert checkpoint.manifest.added == checkpoint.manifest.segments[-1].last
    return {name: torch.cat([file[name] for file in files]) for name in files[0]}


def learned(run: Run) -> list[dict]:
    return [{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in run.metrics]


def events(folder: Path) -> list[tuple[int, str, str]]:
    """Step, tag and value of every scalar in every event file, read without TensorBoard's own mending of overlaps."""
    files = sorted(folder.glob("events.out.tfevents.*"), key=os.path.getmtime)
    return [
        (event.step, value.tag, repr(value.tensor.float_val[0] if value.tensor.float_val else value.simple_value))
        for file in files
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "scalars" and not value.tag.startswith("time/")
    ]


def _assert_same_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name].nan_to_num(), theirs[name].nan_to_num())]
    assert different == []
