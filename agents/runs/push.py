"""A finished run on the Hugging Face Hub: agent, actor, config, protocol, scores and a model card made of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from mtrl_transfer.agents import MTSAC, save_actor
from mtrl_transfer.agents.declarations import Section
from mtrl_transfer.agents.runs.config.loading import load_config, section, to_yaml
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.agents.runs.errors import Failed, InputError
from mtrl_transfer.agents.runs.outcome import Unreadable, read_evaluation, read_protocol
from mtrl_transfer.agents.runs.run_folder import AGENT_FILE, CONFIG_FILE, EVALUATION_FILE, PROTOCOL_FILE
from mtrl_transfer.agents.runs.streams import say

ACTOR_FILE = "actor.safetensors"
CARD = """---
{front}---

# {repo}

{tasks} by one agent of mtrl-transfer: soft actor-critic with a shared trunk and a head per task, gradients
combined by `{method}`, {step:,} transitions, seed {seed}. Mean success **{mean:.3f}**{over}.

| task | success | return | episodes |
| --- | --- | --- | --- |
{scores}

## Use

With `mtrl-transfer[hub]` installed:

```python
from mtrl_transfer.agents import MTSAC, evaluate
from mtrl_transfer.envs import make_vec_env

model = MTSAC.from_hub("{repo}")
print(evaluate(model, make_vec_env({suite}, seed=1), n_eval_episodes=5))
```

The agent is JSON and safetensors, no pickle: loading runs no code. `{actor}` holds the deterministic policy alone.
`hf download {repo} --local-dir FOLDER`, then `mtrl-evaluate FOLDER`, repeats the scores.

## Protocol

| | |
| --- | --- |
{protocol}

The run's config is `{config}`; the command that repeats it:

    mtrl-train {config}
"""


class PushOptions(Section):
    """Options of ``mtrl-push``."""

    private: bool = False
    """Make a new repository private."""


def push(repo: str, argument: str, overrides: Sequence[str], console: Console) -> None:
    """Upload a finished run.

    Args:
        repo: ``user/name``; it is made if it is new.
        argument: the run folder.
        overrides: `PushOptions` as ``key=value``.
        console: where the address is printed.

    Raises:
        InputError: for a bad option, a folder without a finished run, or without huggingface_hub.
        Failed: if the hub refuses.
    """
    options = section(PushOptions, overrides)
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError("mtrl-push needs huggingface_hub: pip install 'mtrl-transfer[hub]'") from None
    with tempfile.TemporaryDirectory() as upload:
        prepare(Path(argument), Path(upload), repo)
        try:
            HfApi().create_repo(repo, private=options.private, exist_ok=True)
            HfApi().upload_folder(repo_id=repo, folder_path=upload, commit_message="mtrl-push")
        except Exception as error:  # the hub's, requests' or httpx's, by version
            raise Failed(f"cannot push to {repo}: {type(error).__name__}: {error}") from error
    say(console, f"Pushed to https://huggingface.co/{repo}")


def prepare(run: Path, upload: Path, repo: str) -> None:
    """Write the files of a repository: none is a pickle, and none names folders of this machine.

    Args:
        run: the run folder.
        upload: an empty folder.
        repo: ``user/name``.

    Raises:
        InputError: if the run is not finished, or a file of it is damaged.
    """
    files = (AGENT_FILE, CONFIG_FILE, PROTOCOL_FILE, EVALUATION_FILE)
    if missing := [name for name in files if not (run / name).is_file()]:
        raise InputError(f"{run} holds no finished run: {', '.join(missing)} missing")
    config = load_config(str(run / CONFIG_FILE))
    try:
        evaluation, protocol = read_evaluation(run / EVALUATION_FILE), read_protocol(run / PROTOCOL_FILE)
        agent = MTSAC.load(run / AGENT_FILE, device="cpu", buffer_size=1)
    except (Unreadable, ValueError) as error:
        raise InputError(f"{run}: {error}") from error
    for name in (AGENT_FILE, PROTOCOL_FILE, EVALUATION_FILE):
        shutil.copyfile(run / name, upload / name)
    (upload / CONFIG_FILE).write_text(to_yaml(config.model_copy(update={"run_dir": None})), encoding="utf-8")
    save_actor(agent, upload / ACTOR_FILE, env=config.env.model_dump(mode="json"))
    (upload / "README.md").write_text(model_card(repo, config, evaluation, protocol), encoding="utf-8")


def model_card(repo: str, config: RunConfig, evaluation: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """The model card: metadata that the hub reads, scores, use, protocol, command."""
    tasks, environment, by = protocol["environment"]["suite"], protocol["environment"], protocol["evaluation"]
    score = {"type": "success_rate", "name": "mean success", "value": evaluation["mean_success"]}
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"type": tasks, "name": tasks},
        "metrics": [score],
    }
    front = {
        "library_name": "mtrl-transfer",
        "tags": ["reinforcement-learning", "multi-task", "stable-baselines3", tasks],
        "model-index": [{"name": repo.split("/")[-1], "results": [result]}],
    }
    scores = [
        f"| {name} | {task['success']:.2f} | {task['return']:.1f} | {task['episodes']} |"
        for name, task in evaluation["tasks"].items()
    ]
    all_solvable = len(environment["solvable_tasks"]) == len(environment["task_names"])
    n_goals = environment["n_goals"]
    goals = f"{by['goals']} ({n_goals} a task)" if n_goals else "drawn anew for each episode"
    horizon = f"{environment['horizon']} steps" if environment["horizon"] else "each task's own time limit"
    facts = {
        "episodes": f"{by['episodes_per_task']} a task, {horizon}; {by['environments']}",
        "goals": goals,
        "policy": by["policy"],
        "success": by["success"],
        "seeds": ", ".join(f"{name} {seed}" for name, seed in protocol["seeds"].items()),
        "matrix products": protocol["precision"],
        "versions": ", ".join(f"{name} {version}" for name, version in protocol["versions"].items()),
        "commit": protocol["commit"] or "of a release",
    }
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        repo=repo,
        tasks=tasks,
        suite=json.dumps(config.env.id),
        over="" if all_solvable else " over the tasks that can be solved",
        method=config.combiner.label,
        step=evaluation["step"],
        seed=config.seed,
        mean=evaluation["mean_success"],
        scores="\n".join(scores),
        protocol="\n".join(f"| {name} | {fact} |" for name, fact in facts.items()),
        actor=ACTOR_FILE,
        config=CONFIG_FILE,
    )
