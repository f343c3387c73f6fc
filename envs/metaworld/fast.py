"""Meta-World's environment classes with the same results, bit for bit, in less time.

Half to three quarters of a step of Meta-World is Python around the physics. Here a class is derived from a
task's class: its methods use quicker helpers (`fast_math`), and the work of all tasks in every step has no detours.
Meta-World itself is not changed. `tests/envs/test_fast_metaworld.py` compares every task with the original.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from metaworld.sawyer_xyz_env import SawyerMocapBase, SawyerXYZEnv

from mtrl_transfer.envs.metaworld.fast_math import REPLACEMENTS, norm

_UPRIGHT = np.array([1.0, 0.0, 1.0, 0.0])
"""Orientation of the gripper, held in every step (Meta-World's value, not normalised)."""
KEPT_MODELS = 16
"""Compiled models that are kept: compiling one takes 0.2 s, copying it a tenth of that; each takes 20 MB."""


class _QuickSawyer(SawyerXYZEnv):
    """Faster versions of methods of Meta-World's base classes; precedes the task's class among the bases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._views: dict[tuple[str, str], Any] = {}
        self._simulating = True
        super().__init__(*args, **kwargs)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Copy the compiled model: training, evaluation and the drawing of goals use the same ones."""
        model = copy.copy(_compiled(self.fullpath, self.width, self.height))
        return model, mujoco.MjData(model)

    def set_task(self, task: Any) -> None:
        """Set the goal; the bounds of observations may change."""
        super().set_task(task)
        space = self.sawyer_observation_space
        self._low, self._high = space.low, space.high

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset as Meta-World does, which homes the arm twice, but simulate only the second time.

        The first pass leaves only the places of bodies in the model; all else is reset before the second.
        """
        self._simulating = False
        self.reset_model()
        self._simulating = True
        self.curr_path_length = 0
        mujoco.mj_resetData(self.model, self.data)
        observation = self.reset_model()
        self._prev_obs = observation[:18].copy()
        observation[18:36] = self._prev_obs
        return observation, {}

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        """Simulate `n_frames` steps; accelerations and forces that no task reads are left out."""
        if self._simulating:
            self.data.ctrl[:] = ctrl
            mujoco.mj_step(self.model, self.data, nstep=n_frames)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one control step. The target's site is not placed here: `mj_forward` would overwrite it at once."""
        data = self.data
        position = data.mocap_pos + (action[:3].clip(-1, 1) * self.action_scale)[None]
        data.mocap_pos[:] = position.clip(self.mocap_low, self.mocap_high)
        data.mocap_quat[:] = _UPRIGHT
        self.do_simulation([action[-1], -action[-1]], self.frame_skip)
        self.curr_path_length += 1
        mujoco.mj_forward(self.model, data)
        observation = self._get_obs().clip(self._low, self._high)
        self._last_stable_obs = observation
        reward, info = self.evaluate_state(observation, action)
        return observation, reward, False, False, info

    def _get_obs(self) -> np.ndarray:
        """Return the state now, the one before, and the goal, `[39]` (multi-task suites always show the goal)."""
        current = self._get_curr_obs_combined_no_goal()
        observation = np.concatenate((current, self._prev_obs, self._get_pos_goal()))
        self._prev_obs = current
        return observation

    def _get_curr_obs_combined_no_goal(self) -> np.ndarray:
        observation = np.zeros(18)
        observation[:3] = self._view("body", "hand").xpos
        apart = norm(self._view("body", "rightclaw").xpos - self._view("body", "leftclaw").xpos)
        observation[3] = min(max(apart / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        for index in range(len(positions) // 3):
            start = 4 + 7 * index
            observation[start : start + 3] = positions[3 * index : 3 * index + 3]
            observation[start + 3 : start + 7] = quaternions[4 * index : 4 * index + 4]
        return observation

    def touching_object(self, object_geom_id: int) -> bool:
        """Return True if both fingers press on the object."""
        left, right = self._view("geom", "leftpad_geom").id, self._view("geom", "rightpad_geom").id
        contacts = self.data.contact
        left_force = right_force = 0
        for index, pair in enumerate(contacts.geom.tolist()):
            if object_geom_id in pair:
                if left in pair:
                    left_force += self.data.efc_force[contacts.efc_address[index]]
                if right in pair:
                    right_force += self.data.efc_force[contacts.efc_address[index]]
        return bool(left_force > 0 and right_force > 0)

    def get_body_com(self, body_name: str) -> np.ndarray:
        """Return the position of a body, `[3]`, a live view."""
        return self._view("body", body_name).xpos

    def get_endeff_pos(self) -> np.ndarray:
        """Return the position of the hand, `[3]`, a live view."""
        return self._view("body", "hand").xpos

    @property
    def tcp_center(self) -> np.ndarray:
        """The middle between the fingers, `[3]`."""
        return (self._view("site", "rightEndEffector").xpos + self._view("site", "leftEndEffector").xpos) / 2.0

    def _get_site_pos(self, site_name: str) -> np.ndarray:
        return self._view("site", site_name).xpos.copy()

    def _view(self, kind: str, name: str) -> Any:
        """Return MuJoCo's accessor of a named object. It is kept: making one takes longer than reading it."""
        key = (kind, name)
        if key not in self._views:
            self._views[key] = getattr(self.data, kind)(name)
        return self._views[key]


@functools.lru_cache(KEPT_MODELS)
def _compiled(path: str, width: int, height: int) -> mujoco.MjModel:
    """Compile a model for pictures of at least this size, as gymnasium does."""
    model = mujoco.MjModel.from_xml_path(path)
    picture = model.vis.global_
    picture.offwidth, picture.offheight = max(picture.offwidth, width), max(picture.offheight, height)
    return model


@functools.cache
def fast_class(env_cls: type[SawyerXYZEnv]) -> type[SawyerXYZEnv]:
    """Return a class that gives the same results as `env_cls` in less time.

    The caller of `step` must stop at 500 steps and set a task first. Accelerations and contact forces on bodies
    (`cacc`, `cfrc_ext`) are not computed.
    """
    methods: dict[str, Any] = {}
    for base in reversed(env_cls.__mro__):
        if issubclass(base, SawyerMocapBase):
            methods.update({name: _rebind(member) for name, member in vars(base).items() if not name.startswith("__")})
    rebound = type(
        env_cls.__name__, (env_cls,), {name: member for name, member in methods.items() if member is not None}
    )
    return type(env_cls.__name__, (_QuickSawyer, rebound), {})


def _rebind(member: Any) -> Any:
    """Return a method or property that uses the replacements, or None for anything else."""
    if isinstance(member, types.FunctionType):
        return _rebind_function(member)
    if isinstance(member, property) and member.fset is None and member.fget is not None:
        return property(_rebind_function(member.fget))
    return None


def _rebind_function(function: Callable[..., Any]) -> types.FunctionType:
    function = _undecorated(function)
    renamed = {name: value for name, value in REPLACEMENTS.items() if name in function.__globals__}
    bound = types.FunctionType(
        function.__code__,
        {**function.__globals__, **renamed},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


def _undecorated(function: Any) -> types.FunctionType:
    """Return the method inside Meta-World's `assert_task_is_set`: these environments always have a task."""
    if function.__qualname__.startswith("SawyerXYZEnv._Decorators."):
        return function.__closure__[0].cell_contents
    return function
