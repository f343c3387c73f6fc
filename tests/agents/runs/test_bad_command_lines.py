"""Bad input costs one message and exit code 2; nothing is written, nothing is computed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmark import benchmark

from mtrl_transfer.agents.runs import cli, train
from mtrl_transfer.agents.runs.config.loading import load_config
from mtrl_transfer.agents.runs.config.machine import cuda_graph_problems

ROOT = Path(__file__).parents[3]

# The command line after `train`, and what the message must say.
BAD_TRAININGS = [
    ("", "CONFIG"),
    ("--lr 3", "argument CONFIG: expected a file or a name before lr=3"),
    ("seed=3 point", "argument CONFIG: expected a file or a name before seed=3"),
    ("point --lr 3", "unknown key lr"),
    ("point --agent.lerning_rate=3", "did you mean agent.learning_rate?"),
    ("point --seed", "unrecognized arguments: --seed"),
    ("--keys agnt", "did you mean agent"),
    ("--print-config pont", "did you mean point?"),
    ("pont", "did you mean point?"),
    ("mt10quick", "did you mean mt10_quick?"),
    ("zzz", "(presets: "),
    ("nowhere/point.yaml", "no config 'nowhere/point.yaml'"),
    (f"{ROOT}/configs/mt10_men.yaml", "mt10_mean.yaml?"),
    (f"{ROOT}/configs", "is a folder"),
    ("point seed", "key=value"),
    ("point =3", "key=value"),
    ("point agent..tau=1", "key=value"),
    ("point seed=[", "not valid YAML"),
    ("point from=", "'from=': the value is missing; from=null means none"),
    ("point resume=true run_dir=", "'run_dir=': the value is missing"),
    ("point env={id:}", "key 'id' has no value; null means none"),
    ("point run_dir=''", "run_dir='' string should have at least 1 character"),
    ("point seed=1 seed=2", "given twice"),
    ("point agent=1 agent.tau=1", "given twice"),
    ("point sed=1", "did you mean seed?"),
    ("point base=mt10_mean.yaml", "unknown key base"),
    ("point lr=1", "unknown key lr"),
    ("point batch_size=256", "did you mean agent.batch_size?"),
    ("point agent.lr=1e-3", "unknown key agent.lr (agent has: batch_size, "),
    ("point agent.seed=1", "did you mean seed?"),
    ("point agent.policy_kwargs.netarch=[3]", "did you mean agent.policy_kwargs.net_arch?"),
    ("point agent.tau.x=1", "agent.tau={'x': 1}"),
    ("point agent=3", "keys of its own: agent.learning_rate"),
    ("point seed=-1", "seed=-1"),
    ("point seed=1.5", "seed=1.5"),
    ("point seed=true", "seed=True"),
    ("point seed=4294967296", "seed=4294967296"),
    ("point total_timesteps=0", "total_timesteps=0"),
    ("point total_timesteps=1400", "total_timesteps=1400 should be above agent.learning_starts=1400"),
    ("point total_timesteps=many", "total_timesteps='many'"),
    ("point name=a/b", "name='a/b'"),
    ("point name=..", "name='..'"),
    ("point agent.learning_rate=0", "greater than 0"),
    ("point agent.learning_rate=.nan", "finite"),
    ("point agent.learning_rate=1e999", "finite"),
    ("point agent.gamma=1.1", "less than or equal to 1"),
    ("point agent.batch_size=9", "of it, e.g. 7 or 14"),
    ("point agent.batch_size=3", "e.g. 7"),
    ("point measure.affinity_rows=65", "should be 2 to 64"),
    ("point measure.affinity_rows=129 agent.batch_size=null", "should be 2 to 128"),
    ("point agent.gamma=1 agent.reward_scaling=max_reward", "reward_scaling=max_reward needs gamma below 1"),
    ("point agent.gamma=1 agent.clip_targets=true", "clip_targets needs gamma below 1"),
    ("point agent.policy_kwargs.net_arch=[]", "net_arch=[] should be the widths"),
    ("point agent.policy_kwargs.net_arch.pi=[0]", "should be the widths"),
    ("point agent.policy_kwargs.net_arch=32", "net_arch=32 should be the widths"),
    ("point agent.policy_kwargs.activation_fn=rlu", "did you mean relu?"),
    ("point agent.policy_kwargs.layer_norm=perhaps", "agent.policy_kwargs.layer_norm"),
    ("point agent.policy_kwargs.optimizer_kwargs.weight_decai=1", "does not have; did you mean weight_decay?"),
    ("point agent.policy_kwargs.optimizer_kwargs.betas=3", "is refused by Adam: "),
    ("point agent.device=gpu", "agent.device='gpu'"),
    ("point agent.device=cuda:99", "CUDA devices"),
    ("point agent.device=cpu agent.cuda_graph=true", "agent.cuda_graph=true needs a CUDA device"),
    ("point agent.reward_scaling=max", "max_return"),
    ("point agent.target_entropy=automatic", "'auto'"),
    ("point combiner.name=pcgrd", "did you mean pcgrad?"),
    ("point combiner.name=7", "combiner.name"),
    ("point combiner.name=mean combiner.kwargs.every=2", "this combiner has no settings"),
    ("point combiner.kwargs.evry=2", "did you mean every?"),
    ("point combiner.kwargs.every=0", "at least 1"),
    ("point combiner.kwargs.every=two", "combiner.kwargs.every='two'"),
    ("point combiner.kwargs.measure=exakt", "exact"),
    ("point combiner.critic.max_norm_factor=no", "combiner.critic.max_norm_factor=False"),
    ("point combiner.actor.scale=ratio", "combiner.actor.scale=ema"),
    ("point combiner.name=random_drop combiner.kwargs.rates=[0.1,0.2]", "rates has 2 entries for 7 tasks"),
    ("point combiner.actor.candidates=[[0,7]]", "actor.candidates names task 7, but tasks are numbered 0 to 6"),
    ("point combiner.kwargs.candidates=[[a],[]]", "names task 'a'"),
    ("point combiner.kwargs.scale=ratio", "combiner.actor.scale=ema"),
    ("point env.id=Point-28 combiner.kwargs.candidates=power_set", "critic: power_set is limited to 16 tasks, got 28"),
    ("point combiner.kwargs=3", "combiner.kwargs=3"),
    ("point env.id=Point-2", "at least 3"),
    ("point env.id=Point-x", "env.id"),
    ("point env.id=MT11", "MT10"),
    ("point env.id=[]", "env.id"),
    ("point env.id=[reach-v3,push-v2]", "push-v3"),
    ("point env.id=[reach-v3,reach-v3]", "twice"),
    ("point env.horizon=20", "Point-7 has no such setting"),
    ("point env.n_procs=2", "one process"),
    ("mt10_quick env.worker_timeout=0", "env.worker_timeout=0 should be greater than 0"),
    ("mt10_quick env.worker_timeout=.inf", "env.worker_timeout=inf should be a finite number"),
    ("mt10_quick env.worker_timeout=soon", "env.worker_timeout='soon'"),
    ("mt10_quick env.worker_timout=9", "did you mean env.worker_timeout?"),
    ("mt10_quick env.horizon=501", "500"),
    ("mt10_quick env.reward_version=v3", "v2"),
    ("mt10_quick env.n_goals=10", "evaluation.final_n_goals=50 should be at most env.n_goals=10"),
    ("mt10_quick evaluation.n_goals=51", "evaluation.n_goals=51 should be at most env.n_goals=50"),
    ("point evaluation.goals=seen", "'unseen'"),
    ("point evaluation.goals=unseen", "Point-7 has no set of training goals"),
    ("point checkpoint.keep=0", "checkpoint.keep=0"),
    ("point log.every=-5", "log.every=-5"),
    ("point matmul_precision=low", "'highest', 'high' or 'medium'"),
    ("point threads=0", "threads=0"),
    ("point threads=1000000000000", "less than or equal to 1024"),
    ("point callbacks=[1]", "callbacks=[1] should be a list of module:Class"),
    ("point lerning_rate=1", "did you mean agent.learning_rate?"),
    ("point resume=true", "needs run_dir="),
    ("point agent.max_nonfinite=0", "agent.max_nonfinite=0"),
    ("point agent.max_grad_norm=-1", "agent.max_grad_norm=-1"),
    ("point agent.buffer_size=0", "agent.buffer_size=0"),
    ("point agent.buffer_size=1e99", "agent.buffer_size"),
    ("point agent.learning_starts=-1", "agent.learning_starts=-1"),
    ("point agent.tau=0", "agent.tau=0"),
    ("point agent.tau=1.5", "agent.tau=1.5"),
    ("point agent.train_freq=0", "agent.train_freq=0"),
    ("point agent.gradient_steps=-2", "agent.gradient_steps=-2"),
    ("point agent.n_steps=0", "agent.n_steps=0"),
    ("point agent.policy_kwargs.actor_tau=2", "agent.policy_kwargs.actor_tau=2"),
    ("point agent.exploration_correlation=1", "agent.exploration_correlation=1"),
    ("point env.training_horizon=20", "env.training_horizon=20: Point-7 has no such setting"),
    ("mt10_quick env.training_horizon=501", "env.training_horizon: "),
    ("point agent.initial_alpha=0.1", "use ent_coef=auto_0.1"),
    ("point agent.measure_every=20", "use measure.every"),
    ("point measure.every=0", "measure.every=0"),
    ("point agent.ent_coef=auto_0", "agent.ent_coef='auto_0' should be"),
    ("point agent.use_sde=true", "exploration_correlation=0.9"),
    ("point reweighting.rank=7", "reweighting.rank=7 should be at most 6"),
    ("point agent.stats_window_size=0", "agent.stats_window_size=0"),
    ("point agent.final_learning_rate=0", "agent.final_learning_rate=0"),
    ("point agent.net.hidden=[8]", "use agent.policy_kwargs, where hidden is called net_arch"),
    ("point agent.policy_kwargs.alignment=always", "agent.policy_kwargs.alignment='always'"),
    ("point checkpoint.every=0", "checkpoint.every=0"),
    ("point checkpoint.every=often", "checkpoint.every='often'"),
    ("point checkpoint.kep=1", "did you mean checkpoint.keep?"),
    ("point log.record_every=0", "log.record_every=0"),
    ("point log.progress=maybe", "log.progress='maybe'"),
    ("point evaluation.final_n_goals=0", "evaluation.final_n_goals=0"),
    ("point resume=perhaps", "resume='perhaps'"),
    ("point env=MT10", "keys of its own"),
    ("point threads=two", "threads='two'"),
    ("point resume=true run_dir=nowhere", "config.yaml is missing"),
    (f"point run_dir={ROOT}/configs", "is not empty"),
    (f"point run_dir={ROOT}/pyproject.toml", "is a file"),
    (f"point run_dir={ROOT}/pyproject.toml/run", "pyproject.toml is a file, expected a folder"),
]
BAD_EVALUATIONS = [
    ("", "CHECKPOINT_OR_RUN_DIR"),
    ("nowhere", "does not exist"),
    (f"{ROOT}/configs", "neither agent.zip nor a checkpoint"),
    (f"{ROOT}/pyproject.toml", "lies in no run folder"),
    (f"{ROOT}/configs episode=3", "did you mean episodes?"),
    (f"{ROOT}/configs episodes=0", "episodes=0"),
    (f"{ROOT}/configs goals=other", "'unseen'"),
]


def check_refusal(code: int | str | None, printed: str, told: str) -> None:
    assert code == 2
    assert told in printed
    assert "Traceback" not in printed
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture(autouse=True)
def _no_work_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "estimate", refuse)


@pytest.mark.parametrize(("line", "told"), BAD_TRAININGS, ids=[line or "empty" for line, _ in BAD_TRAININGS])
def test_bad_training(line: str, told: str, capsys: pytest.CaptureFixture[str]):
    code = cli.train(line.split())
    check_refusal(code, capsys.readouterr().err, told)


@pytest.mark.parametrize(("line", "told"), BAD_EVALUATIONS, ids=[line or "empty" for line, _ in BAD_EVALUATIONS])
def test_bad_evaluation(line: str, told: str, capsys: pytest.CaptureFixture[str]):
    code = cli.evaluate(line.split())
    check_refusal(code, capsys.readouterr().err, told)


def test_a_required_key_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    inside = tmp_path / "empty"
    inside.mkdir()
    (tmp_path / "c.yaml").write_text("name: x\nenv: {}\n", encoding="utf-8")
    os.chdir(inside)
    code = cli.train(["../c.yaml"])
    printed = capsys.readouterr().err
    check_refusal(code, printed, "env.id is missing")
    assert "total_timesteps is missing" in printed


@pytest.mark.slow
def test_the_script_itself_exits_with_2():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train.py", "point", "agent.tua=1", "agent.gama=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    check_refusal(done.returncode, done.stderr, "did you mean agent.tau?")
    assert "did you mean agent.gamma?" in done.stderr
    assert done.stdout == ""


BAD_BENCHMARKS = [
    ("", "required"),
    ("updte", "invalid choice"),
    ("update rows=0", "rows=0"),
    ("update lokahead_rows=3", "did you mean lookahead_rows?"),
    ("update tasks=0", "tasks=0"),
    ("update only=[upgrd]", "did you mean upgrad"),
    ("update matmul_precision=low", "matmul_precision='low'"),
]


@pytest.mark.parametrize(("line", "told"), BAD_BENCHMARKS, ids=[line or "empty" for line, _ in BAD_BENCHMARKS])
def test_bad_benchmark(line: str, told: str, capsys: pytest.CaptureFixture[str]):
    code = benchmark(line.split())
    check_refusal(code, capsys.readouterr().err, told)


def test_there_are_a_hundred():
    assert len({*BAD_TRAININGS, *BAD_EVALUATIONS, *BAD_BENCHMARKS}) >= 100


def test_only_training_needs_the_device_of_cuda_graphs(monkeypatch):
    config = load_config("point", ["agent.cuda_graph=true", "combiner.name=upgrad"])  # evaluated anywhere
    monkeypatch.setattr("mtrl_transfer.agents.runs.config.machine.get_device", lambda name: torch.device("cuda"))
    assert "combiner upgrad, as it is set, cannot be captured" in cuda_graph_problems(config)[0]
    assert cuda_graph_problems(load_config("point", ["agent.cuda_graph=true"])) == []
