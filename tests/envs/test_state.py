"""Environments continue from the middle of an episode, bit for bit, in new objects."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.envs.metaworld.state import MOVED

HORIZON = 70
# stick-push and basketball move bodies of the model; in door-lock `obj_init_pos` is a live view of MuJoCo's data.
FEW = ["stick-push-v3", "basketball-v3", "door-lock-v3"]


def only_plain(node) -> bool:
    if isinstance(node, dict):
        return all(isinstance(key, str) for key in node) and all(map(only_plain, node.values()))
    if isinstance(node, list):
        return all(map(only_plain, node))
    return isinstance(node, (str, int, float, type(None), np.ndarray))


def history(env, actions):
    """Everything that `steps` steps give, but for the clock."""
    seen = []
    for action in actions:
        observations, rewards, dones, infos = env.step(action)
        for info in infos:
            info.get("episode", {}).pop("t", None)
        seen.append((observations.tobytes(), rewards.tobytes(), dones.tobytes(), repr(infos)))
    return seen


def check_continues(make, before: int, after: int, move=None):
    """Steps after a snapshot are those of a new environment brought to it; the snapshot itself changes nothing."""
    env, undisturbed, other = make(), make(), make()
    size = env.action_space.shape
    generator = np.random.default_rng(0)
    observations = env.reset()
    undisturbed.reset()
    actions = []
    for _ in range(before):
        noise = generator.uniform(-1, 1, (env.num_envs, *size)).astype(np.float32)
        actions.append(noise if move is None else (move(observations) + 0.2 * noise).clip(-1, 1).astype(np.float32))
        observations = env.step(actions[-1])[0]
    state = env.state_dict()
    assert only_plain(state)
    np.testing.assert_array_equal(other.load_state_dict(state), observations)
    assert env.state_dict().keys() == state.keys()
    rest = generator.uniform(-1, 1, (after, env.num_envs, *size)).astype(np.float32)
    expected = history(env, rest)
    assert history(other, rest) == expected
    assert history(undisturbed, [*actions, *rest])[before:] == expected
    for one in (env, undisturbed, other):
        one.close()


def scripted(tasks):
    """Meta-World's own policies, which move objects as chance does not."""
    policies = [ENV_POLICY_MAP[task]() for task in tasks]

    def move(observations):
        rows = [
            policy.get_action(row[:39].astype(float)).clip(-1, 1)
            for policy, row in zip(policies, observations, strict=True)
        ]
        return np.stack(rows)

    return move


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("fast", [True, False])
def test_a_few_metaworld_tasks(fast):
    def make():
        return make_vec_env(FEW, seed=3, n_goals=3, horizon=HORIZON, fast=fast)

    check_continues(make, before=HORIZON + 45, after=2 * HORIZON, move=scripted(FEW))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("task", ALL_V3_ENVIRONMENTS)
def test_the_next_500_steps_of_every_metaworld_task(task):
    check_continues(
        lambda: make_vec_env([task], seed=3, n_goals=3, horizon=200), before=260, after=500, move=scripted([task])
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", ALL_V3_ENVIRONMENTS)
def test_resets_and_steps_change_only_stored_arrays(task):
    env = make_vec_env([task], seed=3, n_goals=3, horizon=20)
    simulation = env._shards[0].tasks.envs[0].unwrapped._env
    arrays = {
        name: value
        for name in dir(simulation.model)
        if not name.startswith("_") and isinstance(value := getattr(simulation.model, name), np.ndarray)
    }
    before = {name: value.copy() for name, value in arrays.items()}
    env.reset()
    for _ in range(50):
        env.step(np.random.default_rng(0).uniform(-1, 1, (1, 4)))
    changed = {name for name, value in arrays.items() if not np.array_equal(value, before[name], equal_nan=True)}
    assert changed <= set(MOVED)


def test_point():
    check_continues(lambda: make_vec_env("Point-5", seed=3), before=73, after=120)


class Walk(gym.Env):
    """Random steps; how it starts depends on the steps before, through `np_random`."""

    observation_space = spaces.Box(-99, 99, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012
    noise = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.source = self.np_random if self.noise is None else self.noise
        self.x = self.source.normal()
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x += float(action[0]) + self.source.normal()
        return np.array([self.x], np.float32), self.x, self.x > 4, False, {"success": self.x > 3}


class Counted(Walk):
    """Tells its own state, so that no episode has to be played again."""

    resets = 0

    def reset(self, **arguments):
        type(self).resets += 1
        return super().reset(**arguments)

    def state_dict(self):
        return {"x": self.x, "generator": self.np_random.bit_generator.state}

    def load_state_dict(self, state):
        self.x, self.source = state["x"], self.np_random
        self.np_random.bit_generator.state = state["generator"]


def walks(n_procs=1):
    tasks = {"a": Walk, "b": lambda: gym.wrappers.TimeLimit(Walk(), 9), "c": Counted}
    return make_vec_env(tasks, seed=1, n_procs=n_procs)


@pytest.mark.parametrize("before", [0, 1, 40])
def test_custom_tasks(before):
    check_continues(walks, before, after=50)


def test_a_task_with_state_dict_is_not_replayed():
    env = walks()
    env.reset()
    history(env, np.zeros((3, 3, 1)))
    state, Counted.resets = env.state_dict(), 0
    walks().load_state_dict(state)
    assert Counted.resets == 0


def test_a_task_that_depends_on_more_is_named():
    class Haunted(Walk):
        noise = np.random.default_rng()

    tasks = {"plain": Walk, "haunted": Haunted}
    env = make_vec_env(tasks, seed=0)
    env.reset()
    before = env.step(np.zeros((2, 1)))[0]
    state = env.state_dict()
    with pytest.warns(UserWarning, match="'haunted' cannot be continued"):
        after = make_vec_env(tasks, seed=0).load_state_dict(state)
    assert after[0, 0] == before[0, 0]
    assert after[1, 0] != before[1, 0]


@pytest.mark.parametrize("stream", [np.random.RandomState(0), np.random.Generator(np.random.MT19937(0))])
def test_an_unknown_generator_stops_no_training(stream):
    class Older(Walk):
        def reset(self, *, seed=None, options=None):
            self._np_random = stream
            self.source, self.x = self._np_random, self._np_random.normal()
            return np.array([self.x], np.float32), {}

    tasks = {"older": Older}
    env = make_vec_env(tasks, seed=0)
    for _ in range(2):
        env.reset()
        env.step(np.zeros((1, 1)))
    with pytest.warns(UserWarning, match="'older' cannot be continued"):
        make_vec_env(tasks, seed=0).load_state_dict(env.state_dict())


def test_the_state_is_independent_of_n_procs():
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3, 4)).astype(np.float32)
    options = {"seed": 3, "n_goals": 2, "horizon": 25}
    one, two = make_vec_env(FEW, **options), make_vec_env(FEW, n_procs=2, **options)
    one.reset()
    history(one, actions)
    state = one.state_dict()
    np.testing.assert_array_equal(
        two.load_state_dict(state)[:, :39], np.stack([t["observation"] for t in state["tasks"]])[:, :39]
    )
    assert history(two, actions) == history(one, actions)
    two.close()


def test_states_of_others_are_refused():
    env = make_vec_env(["reach-v3", "push-v3"], n_goals=2, horizon=20)
    env.reset()
    state = env.state_dict()
    first, second = state["tasks"]
    with pytest.raises(ValueError, match="of 1 tasks; there are 2"):
        env.load_state_dict({**state, "tasks": [first]})
    with pytest.raises(ValueError, match="another task's state"):
        env.load_state_dict({**state, "tasks": [second, {**first, "task": _with_physics(second["task"], np.zeros(9))}]})
    task = first["task"]["env"]["env"]
    task["simulation"]["fields"]["step"] = {"value": 3}
    with pytest.raises(ValueError, match="'step' is no field"):
        env.load_state_dict(state)
    task["goal"] = 7
    with pytest.raises(ValueError, match="goals 0 to 1"):
        env.load_state_dict(state)


def _with_physics(task, physics):
    inner = task["env"]["env"]
    simulation = {**inner["simulation"], "physics": physics}
    return {**task, "env": {**task["env"], "env": {**inner, "simulation": simulation}}}
