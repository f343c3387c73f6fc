"""Short real runs of the Point suite, from the command line to the files."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from same_runs import assert_same_run, replay
from short_runs import SHORT, Run, arguments, short_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl_transfer.agents import MTSAC, evaluate
from mtrl_transfer.agents.declarations import Section, keys
from mtrl_transfer.agents.runs import cli, estimate
from mtrl_transfer.agents.runs.callbacks import LogEvery, TimeLeft, solved
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.reference import sections
from mtrl_transfer.agents.runs.config.schema import RunConfig
from mtrl_transfer.envs import make_vec_env

TASKS = ["point-a0", "point-b0", "noise"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "ENOUGH_SECONDS", 0.02)
        return short_run(tmp_path_factory.mktemp("run") / "a")


def scalars(folder: Path) -> dict[int, dict[str, float]]:
    """TensorBoard's own reading of a folder: step -> tag -> value."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in found.setdefault(event.step, {}), f"{tag} twice at {event.step}"
            found[event.step][tag] = event.value
    return found


def check_metrics_equal_tensorboard(run: Run) -> None:
    shown = scalars(run.folder)
    assert [row["step"] for row in run.metrics] == sorted(shown)
    for row in run.metrics:
        expected = shown[int(row.pop("step"))]
        assert row.keys() == expected.keys()
        for tag, value in row.items():
            np.testing.assert_array_equal(
                np.float32(np.nan if value is None else value), np.float32(expected[tag]), tag
            )


def stored_rewards(folder: Path) -> torch.Tensor:
    return replay(folder)["rewards"]


def parameters(run: Run) -> dict[str, torch.Tensor]:
    return MTSAC.load(run.folder / "agent.zip").policy.state_dict()


def assert_same_parameters(one: Run, other: Run) -> None:
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_folder_holds_all_that_is_promised(run: Run):
    names = {path.name for path in run.folder.iterdir() if "tfevents" not in path.name}
    assert names >= {"config.yaml", "protocol.json", "metrics.jsonl", "agent.zip", "evaluation.json", "checkpoints"}
    assert not [path for path in run.folder.rglob("*") if path.suffix in (".tmp", ".partial")]
    assert sum("tfevents" in path.name for path in run.folder.iterdir()) == 1


def test_the_config_is_resolved_and_reads_back(run: Run):
    config = load_config(str(run.folder / "config.yaml"))
    assert (config.env.id, config.total_timesteps, config.agent.policy_kwargs.net_arch, config.seed) == (
        "Point-3",
        900,
        [8],
        5,
    )
    assert config.run_dir == str(run.folder)


def test_the_protocol_card(run: Run):
    card = run.json("protocol.json")
    assert card["seeds"] == {"run": 5, "evaluation": 10_000}
    assert (card["environment"]["suite"], card["environment"]["horizon"]) == ("Point-3", 50)
    assert card["environment"]["task_names"] == TASKS
    assert torch.__version__.startswith(card["versions"]["torch"].split("+")[0])
    assert card["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(card["versions"]) >= {"mtrl-transfer", "stable_baselines3", "metaworld", "mujoco", "gymnasium", "numpy"}
    assert card["precision"] == "float32"
    assert card["machine"].keys() >= {"cpu", "cores", "threads", "device", "matmul_precision"}


def test_metrics_equal_tensorboard(run: Run):
    assert [row["step"] for row in run.metrics] == [150, 300, 450, 600, 750, 900]
    check_metrics_equal_tensorboard(run)


def test_evaluations_are_logged_where_they_belong(run: Run):
    evaluated = [row["step"] for row in run.metrics if "success/mean" in row]
    assert evaluated == [300, 600, 900]
    assert all(f"success/{task}" in run.metrics[-1] and f"return/{task}" in run.metrics[-1] for task in TASKS)


def test_the_recording_covers_the_run(run: Run):
    recording = run.recording
    assert (recording.tasks, recording.networks) == (TASKS, ["critic", "actor"])
    assert len(recording.steps) == run.metrics[-1]["train/n_updates"] // 20
    assert np.all(np.diff(recording.steps) == 60)
    # Measured at updates 0 and 20, then once between any two records.
    assert recording.of("critic")["measurements"].tolist() == [1] * len(recording.steps)
    assert np.isfinite(recording.of("actor")["pairwise"]).all()


def test_config_and_protocol_are_shown_in_tensorboard(run: Run):
    events = EventAccumulator(str(run.folder), size_guidance={"tensors": 0})
    events.Reload()
    shown = {
        tag: events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        for tag in ("config", "protocol")
    }
    assert (run.folder / "protocol.json").read_text(encoding="utf-8").strip() in shown["protocol"]
    assert "total_timesteps: 900" in shown["config"]


def test_only_the_newest_checkpoints_are_kept(run: Run):
    assert run.checkpoints == ["600", "900", "replay"]
    newest = run.folder / "checkpoints" / "900"
    assert {path.name for path in newest.iterdir()} == {"agent.zip", "training.zip", "manifest.json"}
    assert stored_rewards(run.folder).shape == (300, 3)


def test_the_evaluation_is_the_protocols(run: Run):
    """Repeated from the saved agent alone."""
    told = run.json("evaluation.json")
    env = make_vec_env("Point-3", seed=10_000)
    result = evaluate(MTSAC.load(run.folder / "agent.zip"), env, 3)
    assert list(told["tasks"]) == TASKS
    for task, name in enumerate(TASKS):
        assert told["tasks"][name] == {
            "success": result.success[task],
            "return": pytest.approx(result.returns[task], rel=1e-6),
            "episodes": 3,
        }
    assert told["mean_success"] == pytest.approx(result.success[:2].mean())
    assert (told["step"], told["goals"]) == (900, "train")


def test_every_key_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Reading a key to check it is no use of it."""
    read: set[tuple[type, str]] = set()

    def noting(section: Section, name: str):
        caller = Path(sys._getframe(1).f_code.co_filename)
        if caller.parent.name == "runs" and caller.stem not in ("schema", "config", "checks"):
            read.add((type(section), name))
            if name == "model_dump" and not isinstance(section, RunConfig):  # all keys as arguments
                read.update((part, key) for _, part in sections(type(section)) for key in part.model_fields)
        return object.__getattribute__(section, name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Section, "__getattribute__", noting, raising=False)
    assert cli.train(["point", *SHORT, "reweighting.rank=1", "resets.at=[450]", "resets.updates=2"]) == 0
    unread = []
    for key in keys(RunConfig):
        section: type = RunConfig
        *parents, name = key.split(".")
        for parent in parents:
            section = section.model_fields[parent].annotation
        (name,) = (field for field, about in section.model_fields.items() if name == (about.alias or field))
        if (section, name) not in read:
            unread.append(key)
    assert unread == []


def test_watching_changes_nothing(run: Run, tmp_path: Path):
    """Estimate, evaluation, logging, checkpoints and measuring leave the parameters bit for bit as they are."""
    watched = ["evaluation.every=null", "checkpoint.every=null", "log.every=450", "measure.every=null"]
    watched += ["log.record_every=null", "log.videos_every=300", "log.progress=true"]  # progress: an estimate before
    assert_same_parameters(run, short_run(tmp_path / "a", *watched))


def test_resuming_continues_the_count(run: Run, tmp_path: Path):
    folder = shutil.copytree(run.folder, tmp_path / "a")
    before = stored_rewards(folder)
    resumed = ["resume=true", f"run_dir={folder}", "total_timesteps=1200"]
    assert cli.train([str(folder / "config.yaml"), *resumed]) == 0
    after = Run(folder)
    assert [row["step"] for row in after.metrics] == [150, 300, 450, 600, 750, 900, 1050, 1200]
    assert after.metrics[:6] == run.metrics
    assert [row["step"] for row in after.metrics if "success/mean" in row] == [300, 600, 900, 1200]
    assert after.metrics[-1]["train/n_updates"] == after.metrics[5]["train/n_updates"] + 100
    check_metrics_equal_tensorboard(after)
    assert (after.json("evaluation.json")["step"], after.checkpoints) == (1200, ["1200", "900", "replay"])
    stored = stored_rewards(folder)
    assert stored.shape == (400, 3)
    assert torch.equal(stored[:300], before)
    config = load_config(str(folder / "config.yaml"))
    assert (config.total_timesteps, config.resume) == (1200, False)


def test_a_copy_does_not_continue_what_it_was_copied_from(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    before = sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*"))
    line = [str(folder / "config.yaml"), "resume=true", "total_timesteps=1200"]
    assert cli.train(line) == 2
    assert f"to continue the run here, add run_dir={folder}" in capsys.readouterr().err
    assert cli.train([*line, f"run_dir={folder}"]) == 0
    assert Run(folder).json("evaluation.json")["step"] == 1200
    assert sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*")) == before


def test_one_process_trains_in_a_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, refused = shutil.copytree(run.folder, tmp_path / "a"), []
    lines = [[str(folder / "config.yaml"), "resume=true", f"run_dir={folder}", "total_timesteps=1200"]]
    lines += [arguments(tmp_path / "b")]
    for name, line in zip("ab", lines, strict=True):
        with FileLock(tmp_path / f".{name}.lock"):
            assert cli.train(line) == 2
        assert f"{tmp_path / name} is being trained by another process" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()

    def looking(*_: object) -> None:
        for lock in (tmp_path / "runs").glob(".*.lock"):
            with pytest.raises(Timeout):
                FileLock(lock).acquire(timeout=0)
            refused.append(lock)

    # Also where the folder is named by the run itself.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mtrl_transfer.agents.runs.train._learn", looking)
    assert cli.train(["point", *SHORT]) == 0
    assert len(refused) == 1


def test_resuming_after_a_kill_repeats_what_was_after_the_checkpoint(run: Run, tmp_path: Path):
    folder = shutil.copytree(run.folder, tmp_path / "a")
    shutil.rmtree(folder / "checkpoints" / "900")
    (folder / "checkpoints" / ".900.partial").mkdir()
    (folder / "evaluation.json").unlink()
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 901, "train')
    assert cli.train([str(folder / "config.yaml"), "resume=true", f"run_dir={folder}"]) == 0
    after = Run(folder)
    assert [row["step"] for row in after.metrics] == [150, 300, 450, 600, 750, 900]
    assert after.metrics[:4] == run.metrics[:4]
    # No record is lost or doubled, and those before the checkpoint are untouched.
    assert after.recording.steps.tolist() == run.recording.steps.tolist()
    assert after.recording.of("actor")["measurements"].tolist() == run.recording.of("actor")["measurements"].tolist()
    early = run.recording.steps <= 600
    assert after.recording.records[early].tobytes() == run.recording.records[early].tobytes()
    check_metrics_equal_tensorboard(after)
    assert_same_run(run, after)


def test_a_finished_run_and_another_config_are_not_resumed(run: Run, capsys: pytest.CaptureFixture[str]):
    before = sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*"))
    line = [str(run.folder / "config.yaml"), "resume=true", f"run_dir={run.folder}"]
    assert cli.train(line) == 2
    assert "is complete at 900" in capsys.readouterr().err
    assert cli.train([*line, "total_timesteps=1200", "agent.gamma=0.5", "combiner.name=mean"]) == 2
    printed = capsys.readouterr().err
    assert "agent.gamma was 0.8, is 0.5" in printed
    assert "combiner.name was 'transference', is 'mean'" in printed
    assert sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*")) == before


def test_ctrl_c_saves_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write = LogEvery._on_rollout_end

    def interrupting(callback: LogEvery) -> None:
        write(callback)
        if callback.num_timesteps == 210:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(LogEvery, "_on_rollout_end", interrupting)
    assert cli.train(arguments(tmp_path / "a")) == 130
    printed = capsys.readouterr().err
    command = f"{tmp_path}/a/config.yaml resume=true"
    assert command in printed
    assert signal.getsignal(signal.SIGINT) is handler
    interrupted = Run(tmp_path / "a")
    assert interrupted.checkpoints == ["210", "replay"]
    assert stored_rewards(tmp_path / "a").shape == (70, 3)
    assert cli.train(command.split()) == 0
    assert interrupted.json("evaluation.json")["step"] == 900
    assert [row["step"] for row in interrupted.metrics if "success/mean" in row] == [300, 600, 900]


def test_the_command_line_evaluates(run: Run, capsys: pytest.CaptureFixture[str]):
    assert cli.evaluate([str(run.folder)]) == 0
    told = run.json("evaluation.json")
    again = run.json("evaluation_train.json")
    assert again["tasks"] == told["tasks"]
    assert "Mean success" in capsys.readouterr().out
    checkpoint = run.folder / "checkpoints" / "600"
    assert cli.evaluate([str(checkpoint), "episodes=2", "goals=train"]) == 0
    of_checkpoint = Run(checkpoint).json("evaluation_train.json")
    assert (of_checkpoint["step"], of_checkpoint["tasks"]["noise"]["episodes"]) == (600, 2)


def test_point_has_no_unseen_goals(run: Run, capsys: pytest.CaptureFixture[str]):
    assert cli.evaluate([str(run.folder), "goals=unseen"]) == 2
    assert "\n  goals=unseen: Point-3 has no set of training goals" in capsys.readouterr().err
    assert not (run.folder / "evaluation_unseen.json").exists()


def test_what_cannot_be_written_is_printed_nevertheless(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("mtrl_transfer.agents.runs.evaluate.write_text", full)
    assert cli.evaluate([str(run.folder)]) == 1
    printed = capsys.readouterr()
    assert "Mean success" in printed.out
    assert printed.err == "mtrl-evaluate: the evaluation cannot be written: the disk is full\n"


def test_a_run_moves_to_a_machine_without_its_device(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = shutil.copytree(run.folder, tmp_path / "a")
    path = folder / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("device: auto", "device: cuda:99"), encoding="utf-8")
    assert cli.evaluate([str(folder)]) == 0
    assert Run(folder).json("evaluation_train.json")["tasks"] == run.json("evaluation.json")["tasks"]
    resumed = [str(path), "resume=true", f"run_dir={folder}", "total_timesteps=1200"]
    assert cli.train(resumed) == 2
    assert "agent.device='cuda:99': this machine has" in capsys.readouterr().err
    assert cli.train([*resumed, "agent.device=cpu"]) == 0
    assert Run(folder).json("evaluation.json")["step"] == 1200


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = short_run(tmp_path / "a", "log.progress=true")
    captured = capsys.readouterr()
    first, *_, last = captured.out.strip().splitlines()
    assert first.startswith("Estimate: about")
    assert "tensorboard --logdir" in last
    model = MTSAC.load(made.folder / "agent.zip")
    for role, shares in model.kept_share().items():
        assert f"kept by {role}" in captured.out
        rows = [line for line in captured.out.splitlines() if line.startswith("│ point") or line.startswith("│ noise")]
        assert all(f"{share:.0%}" in row for share, row in zip(shares, rows, strict=True))
    correlations = model.prediction_correlation()
    assert f"critic {correlations['critic']:.2f}, actor {correlations['actor']:.2f}" in captured.out
    for part in ("environment", "update", "transference", "evaluation", "other"):
        assert part in captured.out
    assert "900/900" in captured.err
    last = made.metrics[-1]
    glyphs = solved(np.array([last[f"success/{task}"] for task in TASKS]))
    assert f"evaluated={last['success/mean']:.2f} {glyphs}" in captured.err


def test_glyphs_show_solved_tasks():
    assert solved(np.array([1.0, 0.8, 0.0])) == "●◐○"


def test_time_left_follows_the_pace_of_learning(tmp_path: Path):
    config = load_config("point", arguments(tmp_path, "agent.learning_starts=100", "total_timesteps=1100")[1:])
    left = TimeLeft(config)
    assert [left.seconds(done, now, 0.0) for done, now in ((50, 0.5), (100, 1.0))] == [None, None]
    assert left.seconds(200, 11.0, 0.0) == pytest.approx(90.0)  # ten transitions a second
    assert left.seconds(600, 101.0, 4.0) == pytest.approx(106.0)  # five, and an evaluation of 3 goals instead of 2


def test_new_folders_sort_by_time_and_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mtrl_transfer.agents.runs import run_folder

    monkeypatch.chdir(tmp_path)
    config = load_config("point", ["seed=3"])
    made = [run_folder.create(config, {}) for _ in range(3)]
    assert len(set(made)) == 3
    assert all(folder.parent == Path("runs") and "_point_s3" in folder.name for folder in made)
    assert [folder.name for folder in made] == sorted(folder.name for folder in made)
    assert all(load_config(str(folder / "config.yaml")).run_dir == str(folder) for folder in made)


MODULE = """
import gymnasium as gym

TASKS = {f"g{g}": (lambda g=g: gym.make("Pendulum-v1", g=g, max_episode_steps=20)) for g in (2, 5, 9)}
"""


def test_a_run_on_tasks_of_the_users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tasks_of_mine.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    run = short_run(tmp_path / "run", "env.id=tasks_of_mine.TASKS", "total_timesteps=150", "evaluation.every=null")
    assert list(run.json("evaluation.json")["tasks"]) == ["g2", "g5", "g9"]
    assert run.json("protocol.json")["environment"]["suite"] == "tasks_of_mine.TASKS"
    assert cli.evaluate([str(run.folder), "video=true"]) == 2  # they are not made to be drawn


BAD_TASKS = {
    "{}": "tasks_{n}.TASKS needs at least one entry",
    "{'a': 3}": "task 'a' must be a function that makes an environment, not 3",
    "{'mean': gym.Env}": "a task is called 'mean'",
    "{'a': lambda: gym.make('CartPole-v1')}": "ValueError: task 'a' must have a Box of numbers",
    "{'a': lambda: 1 / 0}": "env.id=tasks_{n}.TASKS: ZeroDivisionError: division by zero",
    "exit(0)": "cannot be imported: SystemExit: 0",
}


def test_faults_of_the_users_tasks_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    for n, (tasks, told) in enumerate(BAD_TASKS.items()):
        (tmp_path / f"tasks_{n}.py").write_text(f"import gymnasium as gym\nTASKS = {tasks}\n", encoding="utf-8")
        assert cli.train(arguments(tmp_path / "run", f"env.id=tasks_{n}.TASKS")) == 2
        assert told.replace("{n}", str(n)) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


STATEFUL = """
from gymnasium.envs.classic_control import PendulumEnv

class Stateful(PendulumEnv):
    def state_dict(self):
        return {"seen": {1}}

    def load_state_dict(self, state):
        pass

TASKS = {"one": Stateful, "two": Stateful}
"""


def test_an_env_whose_state_cannot_be_stored_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "tasks_with_sets.py").write_text(STATEFUL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert cli.train(arguments(tmp_path / "run", "env.id=tasks_with_sets.TASKS")) == 2
    assert "no checkpoint could be written: training.training.environment.tasks.0.task.env.env.seen={1} cannot" in (
        capsys.readouterr().err
    )
