from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecCheckNan, VecEnv, VecNormalize

from mtrl_transfer.agents import MTSAC, Evaluation, MultiTaskEvalCallback, evaluate
from mtrl_transfer.agents.monitoring.clips import record_clips
from mtrl_transfer.agents.tasks import EpisodeWindows, succeeded
from mtrl_transfer.envs import make_vec_env

Make = Callable[..., MTSAC]


class OwnTask(gym.Env[np.ndarray, np.ndarray]):
    """Ten steps at the same place; the goal is near only for callers who set it by an option."""

    observation_space, action_space = spaces.Box(-10, 10, (2,)), spaces.Box(-1, 1, (1,))
    render_mode = "rgb_array"
    success: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        self.goal = float((options or {}).get("goal", self.np_random.uniform(3, 5)))
        return np.array([0.0, self.goal], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        success = abs(self.goal) < 0.5 if self.success is None else self.success
        observation = np.array([0.0, self.goal], np.float32)
        return observation, float(action[0]), False, self.t >= 10, {"success": success}

    def render(self) -> np.ndarray:
        return np.zeros((20, 20, 3), np.uint8)


class NoOptions(OwnTask):
    """As environments that are not gymnasium's own often are."""

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict]:  # type: ignore[override]
        return super().reset(seed=seed)


class NoSeed(OwnTask):
    def reset(self) -> tuple[np.ndarray, dict]:  # type: ignore[override]
        return super().reset(seed=5)


class Silent(OwnTask):
    """Reports no success; the return is the sum of actions."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return super().reset(seed=seed, options={"goal": 4})

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return *super().step(action)[:-1], {}  # type: ignore[return-value]


class Far(OwnTask):
    """Observations around 100 and -300, and a cost of 10 a step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return self._see(), -10.0, False, self.t >= 10, {}

    def _see(self) -> np.ndarray:
        return np.array([100 + 50 * self.np_random.uniform(), -300.0 + self.t], np.float32)


class Acts:
    """The same action everywhere."""

    def __init__(self, action: float = 0.0) -> None:
        self.action = action

    def predict(self, observation: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        return np.full((len(observation), 1), self.action, np.float32), None


def two(task: type[OwnTask], seed: int = 0) -> VecEnv:
    return make_vec_env({"a": task, "b": task}, seed=seed)


@pytest.mark.parametrize("task", [OwnTask, NoOptions])
def test_own_tasks_get_no_options(task: type[OwnTask]):
    assert evaluate(Acts(), two(task), 2).mean_success == 0.0
    assert len(record_clips(Acts(), two(task), every=10)) == 2


def test_tasks_without_seed_work():
    assert evaluate(Acts(), make_vec_env({"a": OwnTask, "b": NoSeed}), 2).mean_success == 0.0


def test_suites_begin_at_their_first_goal(make_agent: Make):
    agent, env = make_agent(), make_vec_env("Point-3", seed=4)
    first = evaluate(agent, env, 1)
    np.testing.assert_array_equal(first.returns, evaluate(agent, env, 1).returns)


@pytest.mark.parametrize("success", [float("nan"), -1, -0.5, 0, False, None])
def test_only_positive_success_counts(success: Any):
    assert not succeeded({"is_success": success})
    task = type("Task", (OwnTask,), {"success": success})
    env = two(task)
    if success is not None:
        assert evaluate(Acts(), env, 1).mean_success == 0.0
    windows = EpisodeWindows(["a"], 5)
    windows.update([{"is_success": success}], np.array([True]))
    assert windows.means().get("train_success/a", 0.0) == 0.0


def test_training_means_are_of_all_tasks():
    windows = EpisodeWindows(["a", "b"], 5)
    finished = [{"is_success": True, "episode": {"r": one}} for one in (1.0, 3.0)]
    windows.update([finished[0], {}], np.array([True, False]))
    assert windows.means() == {"train_success/a": 1.0, "train_return/a": 1.0}
    windows.update([{}, finished[1]], np.array([False, True]))
    assert windows.means()["train_return/mean"] == 2.0
    assert windows.means()["train_success/mean"] == 1.0


@pytest.mark.parametrize("success", [True, 1, 0.5, np.float32(1), np.bool_(True)])
def test_positive_success_counts(success: Any):
    assert succeeded({"is_success": success})
    assert evaluate(Acts(), two(type("Task", (OwnTask,), {"success": success})), 1).mean_success == 1.0


@pytest.mark.parametrize("episodes", [0, -1, 2.5])
def test_episodes_are_a_positive_whole_number(episodes: Any):
    with pytest.raises(ValueError, match=f"n_eval_episodes={episodes} must be a whole number"):
        evaluate(Acts(), two(OwnTask), episodes)


def score(success: list[float], returns: list[float], solvable: list[bool] | None = None) -> tuple[float, float]:
    mask = np.ones(len(success), bool) if solvable is None else np.array(solvable)
    names = tuple(f"task-{task}" for task in range(len(success)))
    return Evaluation(names, np.array(success), np.array(returns), 1, mask).score


def test_return_breaks_ties_of_success():
    assert score([0, 1], [5, 5]) > score([0, 0], [50, 50])
    assert score([0, 0], [1, 2]) > score([0, 0], [1, 1])
    assert score([0, 0], [1, -9], [True, False]) > score([0, 0], [0, 99], [True, False])
    assert score([0, 0], [0, -100]) > score([0, 0], [0, np.nan])
    assert not score([0, 0], [0, np.nan]) > score([0, 0], [0, np.nan])


def test_best_model_has_the_best_return(tmp_path: Path):
    agent = MTSAC(
        "MultiTaskPolicy",
        two(Silent),
        combiner="mean",
        batch_size=32,
        learning_starts=40,
        buffer_size=2_000,
        learning_rate=3e-3,
        policy_kwargs={"net_arch": [16]},
        seed=0,
    )
    watch = MultiTaskEvalCallback(two(Silent, 1), 30, 1, tmp_path)
    found: list[float] = []
    evaluated = watch.evaluate
    watch.evaluate = lambda: (evaluated(), found.append(watch.last.returns.mean()))[0]  # type: ignore[method-assign,union-attr]
    agent.learn(300, watch)
    best = evaluate(MTSAC.load(tmp_path / "best_model"), two(Silent, 1), 1).returns.mean()
    assert best == max(found) > found[0]
    restored = MultiTaskEvalCallback(two(Silent, 1), 30, 1)
    restored.load_state_dict(watch.state_dict())
    assert restored.best_score == watch.best_score == (0.0, max(found))


@pytest.mark.parametrize(
    "use",
    [
        lambda agent, env: evaluate(agent, env, 1),
        record_clips,
        lambda agent, env: agent.learn(30, MultiTaskEvalCallback(env)),
    ],
)
@pytest.mark.parametrize("wrap", [lambda env: env, VecCheckNan])
def test_the_training_environment_is_refused(make_agent: Make, use: Any, wrap: Callable[[VecEnv], VecEnv]):
    agent = make_agent()
    with pytest.raises(ValueError, match="evaluation environment is the training environment"):
        use(agent, wrap(agent.env))


@pytest.fixture(scope="module")
def normalized() -> MTSAC:
    env = VecNormalize(two(Far))
    kwargs: dict[str, Any] = {"net_arch": [8]}
    return MTSAC("MultiTaskPolicy", env, combiner="mean", batch_size=16, buffer_size=500, policy_kwargs=kwargs).learn(
        90
    )


def test_evaluation_uses_the_training_statistics(normalized: MTSAC):
    own = normalized.get_vec_normalize_env()
    for wrap in (lambda env: env, VecCheckNan):
        env = VecNormalize(wrap(two(Far, 1)))
        result = evaluate(normalized, env, 2)
        np.testing.assert_array_equal(env.obs_rms.mean, own.obs_rms.mean)
        np.testing.assert_array_equal(env.ret_rms.var, own.ret_rms.var)
        np.testing.assert_array_equal(result.returns, [-100.0, -100.0])  # raw, although rewards are normalised
    assert own.training


def test_callback_evaluates_as_sb3s(normalized: MTSAC):
    watch = MultiTaskEvalCallback(VecNormalize(VecCheckNan(two(Far, 1)), training=False, norm_reward=False), 20, 2)
    normalized.learn(40, watch)
    np.testing.assert_array_equal(watch.eval_env.obs_rms.mean[:2].round(-2), [100, -300])
    mean, _ = evaluate_policy(normalized, watch.eval_env, 4)
    assert watch.last.returns.mean() == pytest.approx(mean)


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (lambda env: env, "no VecNormalize"),
        (lambda env: VecNormalize(env, norm_obs=False), "no VecNormalize"),
        (lambda env: VecNormalize(env, clip_obs=5.0), r"clip_obs=5\.0"),
    ],
)
def test_other_normalization_is_refused(normalized: MTSAC, wrap: Callable[[VecEnv], VecEnv], named: str):
    message = f"not wrapped the same way.*training environment has VecNormalize.*{named}"
    with pytest.raises(ValueError, match=message):
        evaluate(normalized, wrap(two(Far, 1)), 1)
    with pytest.raises(ValueError, match=message):
        normalized.learn(10, MultiTaskEvalCallback(wrap(two(Far, 1))))


def test_normalization_of_an_unnormalized_agent_is_refused(make_agent: Make):
    with pytest.raises(ValueError, match="training environment has no VecNormalize"):
        evaluate(make_agent(), VecNormalize(make_vec_env("Point-3", seed=1)), 1)


def test_an_agent_without_environment_keeps_given_statistics(normalized: MTSAC, tmp_path: Path):
    normalized.save(tmp_path / "agent")
    normalized.get_vec_normalize_env().save(tmp_path / "statistics.pkl")
    env = VecNormalize.load(tmp_path / "statistics.pkl", two(Far, 1))
    loaded = MTSAC.load(tmp_path / "agent")
    np.testing.assert_array_equal(
        evaluate(loaded, env, 2).returns, evaluate(normalized, VecNormalize(two(Far, 1)), 2).returns
    )
    np.testing.assert_array_equal(env.obs_rms.mean, normalized.get_vec_normalize_env().obs_rms.mean)
