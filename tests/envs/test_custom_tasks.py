"""A user's gymnasium environments as tasks."""

from __future__ import annotations

import contextlib
import re
import traceback
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from mtrl_transfer.envs import make_vec_env, protocol_card


class Line(gym.Env):
    """Walk along a line to +limit; terminates there."""

    observation_space = spaces.Box(-10, 10, (2, 1), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, limit):
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-0.5, 0.5))
        return np.array([[self.x], [self.limit]]), {}

    def step(self, action):
        self.x += float(action[0])
        done = self.x >= self.limit
        return np.array([[self.x], [self.limit]]), -1, done, False, {"success": self.x > 1.5}


FACTORIES = {
    "near": lambda: gym.wrappers.TimeLimit(Line(2.0), 4),
    "far": lambda: gym.wrappers.TimeLimit(Line(9.0), 4),
    "middle": lambda: gym.wrappers.TimeLimit(Line(3.0), 4),
}


def test_three_tasks_of_one_shape():
    env = make_vec_env(FACTORIES, seed=0)
    observations = env.reset()
    assert env.get_attr("task_name") == ["near", "far", "middle"]
    assert observations.dtype == np.float32
    np.testing.assert_array_equal(observations[:, 1], [2.0, 9.0, 3.0])
    np.testing.assert_array_equal(observations[:, 2:], np.eye(3))
    assert len(set(observations[:, 0])) == 3
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), observations)
    card = protocol_card(env)
    assert (card["suite"], card["task_names"], card["horizon"]) == ("custom", ["near", "far", "middle"], None)


def factories():
    return FACTORIES


@pytest.mark.parametrize("name", ["FACTORIES", "factories"])
def test_a_suite_is_named_by_its_module(name):
    suite = f"test_custom_tasks.{name}"
    np.testing.assert_array_equal(make_vec_env(suite, seed=0).reset(), make_vec_env(FACTORIES, seed=0).reset())
    some = make_vec_env(f"{suite}:middle,near", seed=0)
    assert some.get_attr("task_name") == ["middle", "near"]
    assert protocol_card(some)["suite"] == f"{suite}:middle,near"


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("nowhere.TASKS", "ModuleNotFoundError: No module named 'nowhere'"),
        ("test_custom_tasks.TASKS", "has no attribute 'TASKS'"),
        ("test_custom_tasks.gym.__doc__", "should be a dict of functions"),
        ("test_custom_tasks.FACTORIES:nea", "did you mean near"),
        ("test_custom_tasks.Line", "TypeError: Line.__init__"),
    ],
)
def test_a_module_without_such_tasks(suite, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(suite)


def test_truncation_is_no_termination_and_success_stays():
    env = make_vec_env(FACTORIES, seed=0)
    env.reset()
    history = [env.step(np.ones((3, 1), np.float32)) for _ in range(4)]
    ends = {
        name: next((step, infos[task]) for step, (_, _, dones, infos) in enumerate(history) if dones[task])
        for task, name in enumerate(FACTORIES)
    }
    assert not ends["near"][1]["TimeLimit.truncated"]
    assert ends["far"][0] == 3
    assert ends["far"][1]["TimeLimit.truncated"]
    assert ends["far"][1]["is_success"]
    assert ends["near"][1]["terminal_observation"][0] >= 2.0
    assert ends["far"][1]["episode"] == {"r": -4.0, "l": 4, "t": ends["far"][1]["episode"]["t"]}


def test_bad_dicts_of_tasks():
    with pytest.raises(ValueError, match="at least one"):
        make_vec_env({})
    with pytest.raises(ValueError, match="'near' must be a function"):
        make_vec_env({"near": Line(2.0)})
    with pytest.raises(TypeError, match=r"'near' should make a gymnasium\.Env, but made 3"):
        make_vec_env({"near": lambda: 3})
    for name in (1, "", "two\nlines"):
        with pytest.raises(ValueError, match=re.escape(f"{name!r}, should be one line of text")):
            make_vec_env({name: lambda: Line(2.0)})
    for argument, value in {"seed": "x", "n_procs": "2", "worker_timeout": "soon"}.items():
        with pytest.raises(ValueError, match=f"{argument}='{value}' must be"):
            make_vec_env(FACTORIES, **{argument: value})
    with pytest.raises(TypeError, match="'n_goals'"):
        make_vec_env(FACTORIES, n_goals=3)


@pytest.mark.parametrize("observation", [3.0, [1.0], np.zeros((3, 1)), None], ids=["number", "one", "three", "None"])
def test_an_observation_of_another_shape_is_refused(observation):
    class Other(Line):
        def reset(self, **arguments):
            return observation, {}

    with pytest.raises(ValueError, match=r"an observation has shape \[.*\], and its space Box\(.*\(2, 1\), float64\)"):
        make_vec_env({"other": lambda: Other(2.0)}).reset()


class Spaces(gym.Env):
    """Has spaces and nothing else."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


NUMBERS, VECTOR = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))
UNSUPPORTED = {
    "discrete": (spaces.Discrete(3), VECTOR),
    "dict": (spaces.Dict(a=NUMBERS), VECTOR),
    "pixels": (spaces.Box(0, 255, (8, 8, 3), np.uint8), VECTOR),
    "discrete actions": (NUMBERS, spaces.Discrete(3)),
    "unbounded actions": (NUMBERS, spaces.Box(-np.inf, np.inf, (2,))),
    "matrices": (NUMBERS, spaces.Box(-1, 1, (2, 2))),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_spaces_are_refused(kind):
    with pytest.raises(ValueError, match=f"task '{kind}' must have a Box of numbers .* it has .* not supported"):
        make_vec_env({"near": FACTORIES["near"], kind: partial(Spaces, *UNSUPPORTED[kind])})


class Recorder(gym.Env):
    """Observes the step's number in each of `width` features, and keeps the actions it gets."""

    def __init__(self, width, low, high):
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.action_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        self.actions.append(action)
        n_steps = len(self.actions)
        return np.full(self.observation_space.shape, n_steps, np.float32), 0.0, False, n_steps == 3, {}


DIFFERENT = {
    "wide": partial(Recorder, 5, [-1], [1]),
    "narrow": partial(Recorder, 2, [0, -4, 2], [10, 4, 3]),
}


def test_different_shapes_are_padded_to_the_widest():
    env = make_vec_env(DIFFERENT, seed=0)
    assert (env.observation_space.shape, env.action_space) == ((7,), spaces.Box(-1, 1, (3,)))
    assert [(width, box.shape) for width, box in env.get_attr("task_space")] == [(5, (1,)), (2, (3,))]
    env.reset()
    observations, *_ = env.step(np.array([[0.5, 9, 9], [-1, 0, 1]], np.float32))
    np.testing.assert_array_equal(observations, [[1, 1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0, 1]])
    taken = [actions[0].tolist() for actions in env.get_attr("actions")]
    assert taken == [[0.5], [0, 0, 3]]
    env.step(env.action_space.high.reshape(1, 3).repeat(2, 0))
    *_, infos = env.step(env.action_space.high.reshape(1, 3).repeat(2, 0))
    np.testing.assert_array_equal(infos[1]["terminal_observation"], [3, 3, 0, 0, 0, 0, 1])


def test_padding_lasts_through_a_lost_worker():
    env = make_vec_env(DIFFERENT, seed=0, n_procs=2)
    try:
        env.reset()
        actions = np.zeros((2, 3), np.float32)
        before = [env.step(actions)[0] for _ in range(2)]
        shard = env._shards[1]
        shard._snapshot, shard._since = None, shard._since[:1] + shard._since[1:]
        shard.process.kill()
        with pytest.warns(UserWarning, match="another one is started"):
            after = env.step(actions)[0]
        assert before[0].shape == after.shape == (2, 7)
        np.testing.assert_array_equal(env.reset()[:, 5:], np.eye(2))
    finally:
        env.close()


def looped(widths):
    return {name: lambda: Line(width) for name, width in widths.items()}  # noqa: B023 - the mistake to be found


def test_functions_that_share_a_loop_variable_are_refused():
    with pytest.raises(ValueError, match=r"'near' and 'far' would be the same .* variable 'width'.*lambda width=width"):
        make_vec_env(looped({"near": 2.0, "far": 9.0}))
    module = {"Line": Line}
    exec("tasks = {}\nfor limit in (2.0, 9.0): tasks[str(limit)] = lambda: Line(limit)", module)
    with pytest.raises(ValueError, match=r"'2\.0' and '9\.0' would be the same .* variable 'limit'"):
        make_vec_env(module["tasks"])
    classes = {"Line": Line, "Far": type("Far", (Line,), {})}
    exec("tasks = {name: (lambda: cls(2.0)) for name, cls in classes.items()}", {"classes": classes}, classes)
    with pytest.raises(ValueError, match=r"variable 'cls'"):
        make_vec_env(classes["tasks"])


def line(limit):
    return lambda: Line(limit)


LIMIT = 3.0


@pytest.mark.parametrize(
    "tasks",
    [
        {str(limit): lambda limit=limit: Line(limit) for limit in (2.0, 9.0)},
        {str(limit): line(limit) for limit in (2.0, 9.0)},
        {str(limit): partial(Line, limit) for limit in (2.0, 9.0)},
        dict.fromkeys(["a", "b"], lambda: Line(LIMIT)),
        {name: lambda: gym.wrappers.TimeLimit(Line(2.0), 4) for name in "ab"},
        {
            "a": lambda: Line(LIMIT),  # on lines apart: Python 3.10 makes one code object of equal ones on a line
            "b": lambda: Line(LIMIT),
        },
    ],
    ids=["default", "closure", "partial", "one function", "copies", "two lambdas"],
)
def test_functions_of_distinct_tasks_are_accepted(tasks):
    assert make_vec_env(tasks).get_attr("task_name") == list(tasks)


class Bare(Line):
    """Its reset takes neither a seed nor options."""

    def __init__(self):
        super().__init__(2.0)

    def reset(self):
        return super().reset()


class Seeded(Bare):
    def reset(self, seed=None):
        return Line.reset(self, seed=seed)


class Forgetful(gym.Wrapper):
    """A wrapper whose reset takes neither."""

    def reset(self):
        return self.env.reset()


@pytest.mark.parametrize(
    "make",
    [
        Bare,
        Seeded,
        lambda: gym.wrappers.TimeLimit(Bare(), 4),
        lambda: Forgetful(Line(2.0)),
        lambda: gym.wrappers.TimeLimit(Forgetful(Seeded()), 4),
    ],
    ids=["bare", "seeded", "wrapped", "wrapper", "both"],
)
def test_resets_without_seed_or_options_are_seeded(make):
    expected, env = (make_vec_env({"a": one, "b": one}, seed=3) for one in (lambda: Line(2.0), make))
    for _ in range(2):
        np.testing.assert_array_equal(env.reset(), expected.reset())
        np.testing.assert_array_equal(env.step(np.ones((2, 1)))[0], expected.step(np.ones((2, 1)))[0])
    env.set_options({"level": 2})
    with pytest.raises(TypeError, match="options"):
        env.reset()


@pytest.mark.parametrize(
    ("success", "counted"),
    [
        *((success, True) for success in (True, 1.0, np.float32(0.5), np.array([1.0]))),
        *((failure, False) for failure in (False, 0.0, np.nan, -1, -np.inf)),
    ],
)
def test_success_is_above_zero(success, counted):
    class Told(Line):
        def step(self, action):
            return *super().step(action)[:4], {"success": success}

    env = make_vec_env({"told": lambda: Told(9.0)})
    env.reset()
    assert env.step(np.zeros((1, 1)))[3][0]["is_success"] is counted


@pytest.mark.parametrize("n_procs", [1, 2])
@pytest.mark.parametrize("broken", ["make", "reset", "step", "render"])
def test_an_exception_names_its_task(broken, n_procs):
    """With the type that was raised, in this process and in a worker."""

    class Broken(Line):
        def __init__(self):
            super().__init__(2.0)
            self._break("make")

        def reset(self, **arguments):
            self._break("reset")
            return super().reset(**arguments)

        def step(self, action):
            self._break("step")
            return super().step(action)

        def render(self):
            self._break("render")

        def _break(self, where):
            if where == broken:
                raise ArithmeticError(where)

    def play():
        with contextlib.closing(make_vec_env({"fine": lambda: Line(2.0), "broken": Broken}, n_procs=n_procs)) as env:
            env.reset()
            env.step(np.zeros((2, 1)))
            env.env_method("render", indices=[1])

    with pytest.raises(ArithmeticError, match=broken) as raised:
        play()
    assert "in task 'broken'" in "".join(traceback.format_exception(raised.value))
